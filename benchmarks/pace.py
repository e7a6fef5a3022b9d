"""How long the steps of a training take while it runs; cellseg/budget.py times some of them ahead of it."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from cellseg.train import EpochReport
from cellseg.whole_files import write_whole

Tell = Callable[[str], None]


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
