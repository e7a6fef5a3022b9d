import math
from dataclasses import replace

import pytest
import torch

from cellseg import checkpoint, loader, train
from cellseg.fingerprint import fingerprint, plan
from cellseg.model import build_model
from cellseg.optimizer import rate_factor
from cellseg.predict import predict
from cellseg.train import NonFiniteLossError, fit

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")


class Recorder:
    """Keeps what it is told; stops after an epoch, or fails after an epoch or in a step, where asked."""

    def __init__(self, stop_after=None, fail_after=None, fail_in_step=None):
        self.steps = []
        self.reports = []
        self.stop_after = stop_after
        self.fail_after = fail_after
        self.fail_in_step = fail_in_step

    def step(self, metrics, step):
        self.steps.append((step, dict(metrics)))
        if step == self.fail_in_step:
            raise InterruptedError("the machine went down")

    def epoch(self, report):
        self.reports.append(report)
        if report.epoch == self.fail_after and not report.replayed:
            raise InterruptedError("the machine went down")
        return report.epoch == self.stop_after


@pytest.fixture
def training(data, run_config, tmp_path):
    """A function that trains in tmp_path and returns the recorder and the path of best.pt."""
    found = plan(data, fingerprint(data, range(4)), run_config)

    def run(config=run_config, folder="run", validation=(3,), recorder=None, **options):
        recorder = recorder or Recorder()
        best = fit(config, found, data, [0, 1, 2], validation, tmp_path / folder, recorder, **options)
        return recorder, best

    return run


def with_train(config, **values):
    return replace(config, train=replace(config.train, **values))


def pretend(monkeypatch, *values):
    """Validations with these AP50, one after the other; the last is repeated."""
    left = list(values)

    def validated(progress, *_):
        return [], {"val/AP50": left.pop(0) if len(left) > 1 else left[0]}, {}

    monkeypatch.setattr(train, "_validate", validated)


def test_a_training_reports_every_step_and_epoch(training, run_config):
    recorder, best = training(commit="abc")
    assert [step for step, _ in recorder.steps] == [1, 2, 3, 4]
    for _, figures in recorder.steps:
        assert figures.keys() == {f"train/{name}" for name in (*LOSSES, "loss", "learning_rate", "grad_norm")}
        assert figures["train/loss"] == pytest.approx(sum(figures[f"train/{name}"] for name in LOSSES), rel=1e-5)
        assert figures["train/grad_norm"] > 0
    rates = [figures["train/learning_rate"] for _, figures in recorder.steps]
    assert rates == pytest.approx([1e-3 * rate_factor(step, 4, 0.05) for step in range(4)])
    assert [(report.epoch, report.step) for report in recorder.reports] == [(1, 2), (2, 4)]
    for report in recorder.reports:
        assert {"val/AP", "val/AP50", "val/AP50_uncapped", "val/PQ"} <= report.metrics.keys()
        assert {"val/class1/AP50", "val/class3/AP50"} <= report.metrics.keys()
        assert {result["image_id"] for result in report.results} <= {4}
        assert not report.replayed
    assert recorder.reports[0].improved
    assert best.name == "best.pt"
    last = checkpoint.load(best.with_name("last.pt"))
    assert (last.commit, last.epoch, last.config) == ("abc", 2, run_config)
    assert last.metrics == recorder.reports[1].metrics
    model, _ = checkpoint.load_model(best)
    assert all(torch.isfinite(each).all() for each in model.state_dict().values())


def test_the_same_seed_trains_the_same_network_with_or_without_workers(training, run_config):
    _, first = training(folder="a")
    _, second = training(replace(run_config, dataset=replace(run_config.dataset, workers=2)), folder="b")
    _, other = training(replace(run_config, seed=1), folder="c", validation=())
    states = [checkpoint.load(path.with_name("last.pt")).model for path in (first, second, other)]
    assert all(torch.equal(states[1][name], each) for name, each in states[0].items())
    name = "roi_heads.box_head.fc6.weight"
    assert not torch.equal(states[0][name], states[2][name])


@pytest.mark.parametrize(
    ("workers", "cut"), [(0, Recorder(fail_after=1)), (1, Recorder(fail_after=1)), (0, Recorder(fail_in_step=4))]
)
def test_an_interrupted_training_ends_as_one_that_was_not(training, run_config, workers, cut):
    config = replace(run_config, dataset=replace(run_config.dataset, workers=workers))
    config = with_train(config, epochs=3)
    whole, best = training(config, folder="whole")
    with pytest.raises(InterruptedError):
        training(config, folder="cut", recorder=cut)
    resumed, resumed_best = training(config, folder="cut", resume=True)
    for name in ("last.pt", "best.pt"):
        one, other = (checkpoint.load(path.with_name(name)) for path in (best, resumed_best))
        assert one.model.keys() == other.model.keys()
        assert all(torch.equal(other.model[key], each) for key, each in one.model.items())
        assert (one.epoch, one.metrics) == (other.epoch, other.metrics)
    trainings = [checkpoint.load(path.with_name("last.pt")).training for path in (best, resumed_best)]
    assert all(torch.equal(trainings[1]["model"][key], each) for key, each in trainings[0]["model"].items())
    assert trainings[0]["history"] == trainings[1]["history"]
    assert resumed.steps == whole.steps
    assert [step for step, _ in resumed.steps] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_training_tells_the_past_again_and_says_so(training, run_config):
    with pytest.raises(InterruptedError):
        training(recorder=(cut := Recorder(fail_after=1)))
    resumed, _ = training(resume=True)
    assert [(report.epoch, report.replayed) for report in resumed.reports] == [(1, True), (2, False)]
    assert resumed.reports[0].metrics == cut.reports[0].metrics
    assert resumed.reports[0].step == 2
    again, _ = training(resume=True)  # it was finished
    assert [(report.epoch, report.replayed) for report in again.reports] == [(1, True), (2, True)]
    assert again.steps == resumed.steps


def test_a_training_killed_before_its_first_checkpoint_starts_anew(training, run_config):
    recorder, best = training(with_train(run_config, epochs=1, steps_per_epoch=1), resume=True)
    assert [step for step, _ in recorder.steps] == [1]
    assert best.exists()


def test_a_training_may_go_on_with_other_data_workers_or_on_another_device(training, run_config):
    training(with_train(run_config, epochs=1, steps_per_epoch=1))
    there = replace(with_train(run_config, epochs=1, steps_per_epoch=1), device="auto")
    training(replace(there, dataset=replace(there.dataset, workers=1)), resume=True)


def test_a_resume_with_another_config_is_refused(training, run_config):
    training(with_train(run_config, epochs=1, steps_per_epoch=1))
    with pytest.raises(ValueError, match="resume: the training was started with another config"):
        training(resume=True)


def test_a_folder_that_holds_a_training_is_not_overwritten(training, run_config, tmp_path):
    config = with_train(run_config, epochs=1, steps_per_epoch=1)
    training(config)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(FileExistsError, match="a training lies here already; resume it or choose another folder"):
        training(config)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_with_the_names_of_its_images(training, run_config, monkeypatch):
    named = []
    whole_batch = loader.collate

    def poisoned(views):
        batch = whole_batch(views)
        named[:] = batch.names
        for cells in batch.targets:
            cells["boxes"] *= math.nan
        return batch

    monkeypatch.setattr(loader, "collate", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"is not finite \(.*loss_\w+ nan.*\) on image\d, image\d; "):
        training(with_train(run_config, batch=2))
    monkeypatch.undo()
    assert len(named) == 2


def test_an_exploding_training_stops(training, run_config, tmp_path):
    config = with_train(run_config, optimizer="sgd", learning_rate=1e30, clip_norm=0.0, warmup_fraction=0.0)
    with pytest.raises(NonFiniteLossError, match=r"lower --train\.learning-rate"):
        training(config)
    assert not (tmp_path / "run" / "best.pt").exists()


def test_the_best_network_is_kept_apart_from_the_last(training, run_config, monkeypatch):
    pretend(monkeypatch, 0.1, 0.3, 0.3, 0.2)
    recorder, best = training(with_train(run_config, epochs=4, steps_per_epoch=1))
    assert [report.improved for report in recorder.reports] == [True, True, False, False]
    assert (checkpoint.load(best).epoch, checkpoint.load(best).metrics) == (2, {"val/AP50": 0.3})
    assert checkpoint.load(best.with_name("last.pt")).epoch == 4
    assert checkpoint.load(best).training == {}


def test_patience_stops_a_training_also_when_it_is_resumed(training, run_config, monkeypatch):
    pretend(monkeypatch, 0.1, 0.3, 0.2)
    config = with_train(run_config, epochs=9, steps_per_epoch=1, patience=2)
    recorder, best = training(config)
    assert [report.epoch for report in recorder.reports] == [1, 2, 3, 4]
    assert checkpoint.load(best).epoch == 2
    again, _ = training(config, resume=True)
    assert [report.replayed for report in again.reports] == [True] * 4


def test_patience_counts_epochs_and_not_validations(training, run_config, monkeypatch):
    validate = iter([{}, {"val/AP50": 0.3}, {}, {"val/AP50": 0.2}, {}, {"val/AP50": 0.1}, {}, {}])
    monkeypatch.setattr(train, "_validate", lambda *_: ([], next(validate), {}))
    recorder, best = training(with_train(run_config, epochs=8, steps_per_epoch=1, patience=4))
    assert len(recorder.reports) == 6
    assert checkpoint.load(best).epoch == 2


def test_an_observer_can_stop_a_training(training):
    recorder, _ = training(recorder=Recorder(stop_after=1))
    assert [report.epoch for report in recorder.reports] == [1]


def test_validation_comes_every_so_many_epochs_and_after_the_last(training, run_config):
    config = with_train(run_config, epochs=5, steps_per_epoch=1, validate_every=2)
    recorder, best = training(config)
    assert [bool(report.metrics) for report in recorder.reports] == [False, True, False, True, True]
    assert not recorder.reports[0].improved
    assert checkpoint.load(best).epoch >= 2


def test_without_validation_images_the_last_network_is_the_best(training):
    recorder, best = training(validation=())
    assert [(report.metrics, report.results, report.improved) for report in recorder.reports] == [({}, [], True)] * 2
    assert checkpoint.load(best).epoch == 2
    last = checkpoint.load(best.with_name("last.pt"))
    assert all(torch.equal(last.model[name], each) for name, each in checkpoint.load(best).model.items())


def test_large_gradients_are_clipped(training, run_config):
    """A step of plain SGD changes the weights by the rate times the clipped norm."""
    config = with_train(
        run_config,
        optimizer="sgd",
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.0,
        warmup_fraction=0.0,
        epochs=1,
        steps_per_epoch=1,
        clip_norm=0.01,
        ema_decay=0.0,
    )
    recorder, best = training(config)
    assert recorder.steps[0][1]["train/grad_norm"] > 0.01
    torch.manual_seed(config.seed)
    start = dict(build_model(config.model).named_parameters())
    state = checkpoint.load(best).model
    moved = torch.stack([(state[name] - each).square().sum() for name, each in start.items()]).sum().sqrt()
    assert moved.item() == pytest.approx(0.01, rel=0.01)


def test_the_averaged_network_is_validated_and_kept(training, run_config):
    config = with_train(run_config, epochs=1, steps_per_epoch=1)
    _, best = training(config)
    saved = checkpoint.load(best.with_name("last.pt"))
    torch.manual_seed(config.seed)
    start = build_model(config.model).state_dict()
    name = "roi_heads.box_head.fc6.weight"
    after = saved.training["model"][name]
    assert not torch.equal(start[name], after)
    assert torch.allclose(saved.model[name], 2 / 11 * start[name] + 9 / 11 * after, atol=1e-7)


def test_the_kept_network_gives_the_results_that_were_measured(training, run_config, data):
    config = with_train(run_config, epochs=1, steps_per_epoch=1)
    config = replace(config, predict=replace(config.predict, score_threshold=0.0))
    recorder, best = training(config)
    model, saved = checkpoint.load_model(best)
    results = predict(model, [(data.records[3].image_id, data.image(3))], saved.config.predict)
    assert len(results) > 0
    assert results == recorder.reports[0].results


def test_images_without_cells_train(training, run_config):
    config = replace(run_config, dataset=replace(run_config.dataset, minimum_area=10_000))
    recorder, _ = training(with_train(config, epochs=1))
    assert recorder.steps[0][1]["train/loss_mask"] == 0
