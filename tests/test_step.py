import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import MultiScaleRoIAlign

from cellseg import step
from cellseg.config import TrainConfig
from cellseg.loader import TrainingViews, collate
from cellseg.progress import begin
from cellseg.roi_pool import CellRoiPool
from cellseg.step import Figures, NonFiniteLossError, _backward, _Step, train_epoch

CPU = torch.device("cpu")


class Told:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.steps = []

    def step(self, metrics, number):
        self.steps.append((number, metrics))


class Read(TorchDispatchMode):
    """Counts the numbers that are read off tensors: on a GPU each would wait for all work before it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def batches_of(data, config, count, size=1):
    views = TrainingViews(data, config)
    return [collate([views[0, size * n + k, (n + k) % 3] for k in range(size)]) for n in range(count)]


def trained(data, config, batches, **train):
    config = replace(config, train=replace(config.train, **train))
    progress = begin(config, CPU, None)
    told = Told()
    steps = train_epoch(progress, progress.model, batches, config.train, len(batches), told)
    assert [figures for _, figures in told.steps] == steps
    return progress, steps


def test_a_step_s_figures_are_the_means_of_its_passes(data, run_config):
    batches = batches_of(data, run_config, 2)
    progress, (together,) = trained(data, run_config, batches, accumulation=2, learning_rate=1e-30)
    (one,), (other,) = (trained(data, run_config, [batch], learning_rate=1e-30)[1] for batch in batches)
    assert progress.step == 1
    for name in ("train/loss", "train/loss_mask", "train/loss_objectness"):
        assert together[name] == pytest.approx((one[name] + other[name]) / 2, rel=1e-5)


def test_accumulated_gradients_are_the_mean_of_those_of_the_batches(data, run_config):
    (batch,) = batches_of(data, run_config, 1)
    model = begin(run_config, CPU, None).model.train()
    gradients = []
    for accumulation in (1, 4):
        model.zero_grad()
        _backward(model, batch, accumulation)
        gradients.append(model.rpn.head.cls_logits.weight.grad.clone())
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], 4 * gradients[1])


def test_a_step_depends_on_its_images_and_not_on_what_was_drawn_before(data, run_config):
    batches = batches_of(data, run_config, 1, size=2)
    first = trained(data, run_config, batches)[1]
    torch.rand(17)
    assert trained(data, run_config, batches)[1] == first


def test_figures_wait_until_it_is_time_and_then_come_in_order(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(step.time, "monotonic", lambda: now[0])
    told = Told()
    figures = Figures(told)
    for number in (1, 2, 3):
        now[0] += 0.45
        figures.add(_Step(number, 0.1, ["a"], ["loss"], torch.tensor([float(number)])))
        assert len(told.steps) == (0 if number < 3 else 3)
    assert told.steps == [(n, {"train/loss": float(n), "train/learning_rate": 0.1}) for n in (1, 2, 3)]
    figures.read()
    assert figures.told == [metrics for _, metrics in told.steps]


def test_of_many_steps_the_images_of_the_first_that_is_not_finite_are_named():
    told = Told()
    figures = Figures(told)
    for number, (loss, image) in enumerate([(1.0, "a"), (math.inf, "b"), (math.nan, "c")], start=1):
        figures.add(_Step(number, 0.1, [image], ["loss", "loss_mask"], torch.tensor([loss, loss])))
    with pytest.raises(NonFiniteLossError, match=r"not finite \(loss_mask inf\) on b; "):
        figures.read()
    assert [number for number, _ in told.steps] == [1]


def test_a_gradient_that_is_not_finite_stops_a_training_though_its_loss_was():
    figures = Figures(Told())
    figures.add(_Step(1, 0.1, ["a"], ["loss", "loss_mask", "grad_norm"], torch.tensor([1.0, 1.0, math.inf])))
    with pytest.raises(
        NonFiniteLossError, match=r"the loss or its gradient is not finite \(loss_mask 1, grad_norm inf\)"
    ):
        figures.read()


def test_what_fails_after_a_loss_that_was_not_finite_is_explained_by_it(data, run_config):
    def batches():
        (batch,) = batches_of(data, run_config, 1)
        batch.targets[0]["boxes"] *= math.nan
        yield batch
        raise IndexError("a box at nan")

    progress = begin(run_config, CPU, None)
    with pytest.raises(NonFiniteLossError, match="not finite"):
        train_epoch(progress, progress.model, batches(), run_config.train, 2, Told())


@pytest.mark.parametrize("train", [TrainConfig(optimizer="sgd"), TrainConfig(accumulation=2)])
@pytest.mark.parametrize("pool", [CellRoiPool.forward, MultiScaleRoIAlign.forward], ids=["cpu", "as on a GPU"])
def test_no_step_reads_a_number_off_the_device(data, run_config, monkeypatch, train, pool):
    """What is left to wait for are sizes: of what NMS keeps, and of the positive RoIs; on a GPU, of a level's RoIs."""
    monkeypatch.setattr(CellRoiPool, "forward", pool)
    config = replace(run_config, train=replace(train, batch=2))
    batches = batches_of(data, config, 4, size=2)
    progress = begin(config, CPU, None)
    with Read() as read:
        train_epoch(progress, progress.model, batches, config.train, 4, Told())
    assert read.count == 0


def test_the_counter_of_readings_counts():
    with Read() as read:
        float(torch.ones(()))
        bool(torch.ones(()) > 0)
    assert read.count == 2
