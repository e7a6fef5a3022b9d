"""How many epochs fit into some hours: from what steps, a validation and checkpoints take on this machine."""

import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, floor, log10, prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

import torch

from cellseg.device import device_of
from cellseg.distributed import from_first, own_device, world
from cellseg.evaluate import score
from cellseg.experiment import Prepared, Silent
from cellseg.fingerprint import fingerprint, sampling_weights
from cellseg.loader import forward_passes, training_loader
from cellseg.predict import predict
from cellseg.progress import Progress, begin, for_all_processes
from cellseg.step import train_epoch
from cellseg.train import EpochReport, write_checkpoints

WARM = 3
"""steps before those that are timed"""
TIMED = (4, 30)
"""least and most steps that are timed"""
TIMING = 60.0
"""seconds after which no more than the least are timed"""
MEASURING = 0.05
"""share of the hours after which no more than the least are timed, where that is sooner"""
STEPS = WARM + TIMED[1] + 1
KEPT = 0.1
"""share of the hours that is kept: steps grow slower as proposals find cells, and machines have other things to do"""
CHARTS = 1.5
"""seconds that the curves and pictures of a validation take on their way to MLflow, on a CPU"""
T = TypeVar("T")


class Pace(Generic[T]):
    """Batches, until enough steps were timed."""

    def __init__(self, batches: Iterable[T], passes: int, timing: float = TIMING) -> None:
        """Of a training that takes so many batches for a step; after so many seconds the least steps will do."""
        self.batches = batches
        self.passes = passes
        self.timing = timing
        self.stamps: list[float] = []

    def __iter__(self) -> Iterator[T]:
        least, most = (WARM + count + 1 for count in TIMED)
        start = time.perf_counter()
        for number, batch in enumerate(self.batches, start=1):
            yield batch
            if number % self.passes == 0:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.stamps.append(time.perf_counter())
                late = from_first(self.stamps[-1] - start > self.timing)  # all processes stop at the same step
                if len(self.stamps) >= (least if late else most):
                    return

    @property
    def seconds(self) -> float:
        """Median from the end of a step to the end of the next, after the first WARM."""
        stamps = self.stamps[WARM:]
        return median(after - before for before, after in pairwise(stamps))


@dataclass(frozen=True)
class Costs:
    """Seconds that the parts of a training take."""

    step: float
    validation: float
    """0 without validation images"""
    epoch: float
    """of what ends every epoch: its checkpoints"""


@dataclass(frozen=True)
class Schedule:
    """How the epochs of trainings are laid out."""

    steps: int
    """of an epoch"""
    validate_every: int
    """epochs from one validation to the next; the last epoch is always validated"""
    folds: int = 0
    """trainings that are validated, before one that is not; 0: one training that is"""
    last_steps: int = 0
    """of an epoch of that one, which has all images"""

    def validations(self, epochs: int) -> int:
        """In one training."""
        return ceil(epochs / self.validate_every)

    def seconds(self, epochs: int, costs: Costs) -> float:
        """All trainings together; each fold ends with one more prediction of the images that it holds back."""
        validated = epochs * (self.steps * costs.step + costs.epoch) + self.validations(epochs) * costs.validation
        last = epochs * (self.last_steps * costs.step + costs.epoch)
        return self.folds * (validated + costs.validation) + last if self.folds else validated


def epochs_for(prepared: Prepared, hours: float, since: float, runs: Path, folds: int = 0) -> tuple[int, str]:
    """The most epochs that trainings have room for which end within hours of `since` (time.monotonic), and a sentence.

    With folds, so many trainings like this one share the hours with a last one without validation. All processes that
    will train measure together. Raises ValueError, with the least hours, where one epoch has no room.
    """
    train = prepared.config.train
    steps, last_steps = (
        forward_passes(images, prepared.config) // train.accumulation
        for images in (len(prepared.train), len(prepared.data))
    )
    schedule = Schedule(steps, train.validate_every, folds, last_steps)
    timing = min(TIMING, MEASURING * hours * 3600)
    costs, spent = from_first((measured(prepared, runs, timing), time.monotonic() - since))
    epochs = epochs_within(hours, spent, schedule, costs)
    return epochs, sentence(hours, epochs, schedule, costs)


def epochs_within(hours: float, spent: float, schedule: Schedule, costs: Costs) -> int:
    """The most epochs whose trainings end within hours, of which some seconds are spent and a share is kept.

    Raises ValueError, with the least hours, where there is no room for one.
    """
    room = hours * 3600 * (1 - KEPT) - spent
    most = int(max(room, 0) / (schedule.steps * costs.step))
    epochs = bisect_right(range(1, most + 1), room, key=lambda count: schedule.seconds(count, costs))
    if epochs:
        return epochs
    least = (schedule.seconds(1, costs) + spent) / 3600 / (1 - KEPT)
    digits = 1 - floor(log10(least))  # two that count
    trainings = f" in {schedule.folds + 1} trainings" if schedule.folds else ""
    raise ValueError(
        f"--hours {hours:g}: no room for an epoch of {schedule.steps} steps of {costs.step:.3g} s{trainings}; give "
        f"--hours {ceil(least * 10**digits) / 10**digits:g} or more, or lower --train.steps-per-epoch"
    )


def sentence(hours: float, epochs: int, schedule: Schedule, costs: Costs) -> str:
    """Such as `0.5 h: 0.15 s a step, 38 epochs of 250 steps, 12 validations of 9 s`."""
    said = f"{hours:g} h: {costs.step:.3g} s a step, {epochs} epochs of {schedule.steps} steps"
    if costs.validation:
        said += f", {schedule.validations(epochs)} validations of {costs.validation:.3g} s"
    return f"{said}, in each of {schedule.folds} folds and once more" if schedule.folds else said


def measured(prepared: Prepared, runs: Path, timing: float = TIMING) -> Costs:
    """What the parts of this training take here; its checkpoints will lie under runs."""
    progress, step = paced(prepared, timing)
    return Costs(step, _of_validation(progress, prepared), _of_checkpoints(progress, prepared, runs))


def paced(prepared: Prepared, timing: float = TIMING) -> tuple[Progress, float]:
    """A training of some steps, to be thrown away, and the median seconds of one, loading included."""
    config, data, train = prepared.config, prepared.data, prepared.train
    progress = begin(config, own_device(device_of(config.device)), None, prepared.plan.class_names)
    weights = sampling_weights(fingerprint(data, train), config.train)
    enough = replace(config, train=replace(config.train, steps_per_epoch=STEPS))
    pace = Pace(training_loader(data, train, weights, enough), config.train.accumulation, timing)
    passes = forward_passes(len(train), config)
    train_epoch(progress, for_all_processes(progress.model), pace, config.train, passes, Silent())
    return progress, pace.seconds


def _of_validation(progress: Progress, prepared: Prepared) -> float:
    """By the pixels of this process's share, from an image of median size; before it, the smallest warms up."""
    data, config = prepared.data, prepared.config.predict
    sizes = {index: prod(data.records[index].size_hw) for index in prepared.validation[:: world()[1]]}
    if not sizes:
        return 0.0
    ascending = sorted(sizes, key=sizes.__getitem__)
    seconds = 0.0
    for index in (ascending[0], middle := ascending[len(ascending) // 2]):
        start = time.perf_counter()
        score(data.truth([index]), predict(progress.averaged, data.identified([index]), config), config.pq_threshold)
        seconds = time.perf_counter() - start
    return seconds * sum(sizes.values()) / sizes[middle] + CHARTS


def _of_checkpoints(progress: Progress, prepared: Prepared, runs: Path) -> float:
    """As the first process writes them under runs."""
    if world()[0]:
        return 0.0
    runs.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=runs) as folder:
        report = EpochReport(1, progress.step, {}, [], {}, True, Path(folder) / "last.pt")
        start = time.perf_counter()
        write_checkpoints(progress, prepared.config, prepared.plan, "", report)
        return time.perf_counter() - start
