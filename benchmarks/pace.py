"""How long the steps of a training take: some of them ahead of it, all of them while it runs."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

import torch

from cellseg.train import EpochReport
from cellseg.whole_files import write_whole

WARM = 3
"""steps before those that are timed"""
TIMED = (4, 30)
"""least and most steps that are timed"""
TIMING = 60.0
"""seconds after which no more than the least are timed, where nothing else is said"""
STEPS = WARM + TIMED[1] + 1
T = TypeVar("T")
Tell = Callable[[str], None]


class Pace(Generic[T]):
    """Batches, until enough steps were timed."""

    def __init__(self, batches: Iterable[T], passes: int, patience: float = TIMING) -> None:
        """Of a training that takes so many batches for a step."""
        self.batches = batches
        self.passes = passes
        self.patience = patience
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
                late = self.stamps[-1] - start > self.patience
                if len(self.stamps) >= (least if late else most):
                    return

    @property
    def seconds(self) -> float:
        """Median from the end of a step to the end of the next, after the first WARM."""
        stamps = self.stamps[WARM:]
        return median(after - before for before, after in pairwise(stamps))


class Clock:
    """An observer that keeps the seconds of a training in a file, over all processes that it took."""

    def __init__(self, path: Path, steps: int, tell: Tell) -> None:
        self.path, self.steps, self.tell = path, steps, tell
        self.seconds = 0.0
        with suppress(FileNotFoundError):
            self.seconds = float(path.read_text())
        self.since = time.perf_counter()
        self.loss = 0.0

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Remember the loss."""
        self.loss = metrics["train/loss"]

    def epoch(self, report: EpochReport) -> bool:
        """Add an epoch's seconds, unless an earlier process did, and tell."""
        now = time.perf_counter()
        if not report.replayed:
            self.seconds += now - self.since
            write_whole(str(self.seconds), self.path)
            pace = self.seconds / report.step
            self.tell(f"step {report.step} of {self.steps}, loss {self.loss:.3f}, {pace:.2f} s a step")
        self.since = now
        return False
