"""The steps of one epoch. Their figures stay on the device and are read a second's worth at a time.

Reading a number makes a GPU wait until all that it was given is done, so no step reads its figures.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cellseg.config import TrainConfig
from cellseg.distributed import mean_over_processes, world
from cellseg.loader import Batch
from cellseg.optimizer import average, average_decay, rate_factor
from cellseg.progress import Progress

READ_EVERY = 1.0
"""seconds between two readings of the figures"""


class StepObserver(Protocol):
    """What is told of every step."""

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Train/… figures of one optimiser step, counted from 1."""


class NonFiniteLossError(FloatingPointError):
    """The loss of a batch, or its gradient, is NaN or infinite."""


class _Step(NamedTuple):
    number: int
    rate: float
    images: list[str]
    names: list[str]
    values: Tensor  # of the names, still on the device


class Figures:
    """The figures of an epoch's steps, in order; told to the observer as they are read."""

    def __init__(self, observer: StepObserver) -> None:
        self.told: list[dict[str, float]] = []
        self._observer = observer
        self._unread: list[_Step] = []
        self._read = time.monotonic()

    def add(self, step: _Step) -> None:
        """Keep a step's figures; read them all when it is time. Raises NonFiniteLossError."""
        self._unread.append(step)
        if time.monotonic() - self._read > READ_EVERY:
            self.read()

    def read(self) -> None:
        """Tell the observer what it has not been told. Raises NonFiniteLossError."""
        unread, self._unread = self._unread, []
        values = torch.stack([step.values for step in unread]).tolist() if unread else []
        self._read = time.monotonic()
        for step, numbers in zip(unread, values, strict=True):
            figures = dict(zip(step.names, numbers, strict=True))
            _refuse_unless_finite(figures, step.images)
            told = {f"train/{name}": value for name, value in figures.items()} | {"train/learning_rate": step.rate}
            self.told.append(told)
            self._observer.step(told, step.number)


def train_epoch(
    progress: Progress,
    network: nn.Module,
    batches: Iterable[Batch],
    config: TrainConfig,
    passes: int,
    observer: StepObserver,
) -> list[dict[str, float]]:
    """Figures of each optimiser step of one epoch; `network` is progress.model, or that on all processes."""
    progress.model.train()
    total = config.epochs * passes // config.accumulation
    figures = Figures(observer)
    losses: list[dict[str, Tensor]] = []
    images: list[str] = []
    try:
        for number, batch in enumerate(batches, start=1):
            complete = number % config.accumulation == 0
            with nullcontext() if complete else _gradients_stay_here(network):
                losses.append(_backward(network, batch, config.accumulation))
            images += batch.names
            if complete:
                rate = config.learning_rate * rate_factor(progress.step, total, config.warmup_fraction)
                figures.add(_told(progress, losses, images, rate, _update(progress, config, rate)))
                losses, images = [], []
    except Exception:
        figures.read()  # a loss that was not finite explains what went wrong later
        raise
    figures.read()
    return figures.told


def _gradients_stay_here(network: nn.Module) -> AbstractContextManager[Any]:
    return network.no_sync() if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext()


def _backward(network: nn.Module, batch: Batch, accumulation: int) -> dict[str, Tensor]:
    """The losses of a batch, whose gradients are added to the parameters'."""
    there = batch.to(next(network.parameters()).device)
    losses: dict[str, Tensor] = network(there.images, there.targets, there.seeds)
    loss = torch.stack(list(losses.values())).sum()
    torch.autograd.backward(loss / accumulation)
    return {"loss": loss.detach()} | {name: value.detach() for name, value in losses.items()}


def _update(progress: Progress, config: TrainConfig, rate: float) -> Tensor:
    """One optimiser step at a learning rate; the gradient's norm () before clipping."""
    trained = [each for each in progress.model.parameters() if each.grad is not None]
    norm = nn.utils.clip_grad_norm_(trained, config.clip_norm or math.inf)
    for group in progress.optimizer.param_groups:
        group["lr"] = rate
    progress.optimizer.step()
    progress.optimizer.zero_grad(set_to_none=True)
    progress.step += 1
    average(progress.averaged, progress.model, average_decay(progress.step, config.ema_decay))
    return norm


def _told(
    progress: Progress, losses: Sequence[Mapping[str, Tensor]], images: list[str], rate: float, norm: Tensor
) -> _Step:
    """The figures of a step: losses averaged over its passes and processes, and the gradient's norm."""
    names = list(losses[0])
    means = torch.stack([torch.stack(list(each.values())) for each in losses]).mean(dim=0)
    values = torch.cat([mean_over_processes(means), norm.detach()[None]])
    return _Step(progress.step, rate, images, [*names, "grad_norm"], values)


def _refuse_unless_finite(figures: Mapping[str, float], images: Sequence[str]) -> None:
    """The gradient's norm too: from an infinite one AdamW makes weights that are NaN."""
    if not all(map(math.isfinite, figures.values())):
        found = ", ".join(f"{name} {value:.3g}" for name, value in figures.items() if name != "loss")
        others = f", or on those of the {world()[1] - 1} other processes" if world()[1] > 1 else ""
        raise NonFiniteLossError(
            f"training: the loss or its gradient is not finite ({found}) on {', '.join(images)}{others}; "
            f"lower --train.learning-rate, or look at these images"
        )
