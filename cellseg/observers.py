"""What watches a training: MLflow, a progress bar, and several observers as one."""

import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from cellseg import plots
from cellseg.config import RunConfig
from cellseg.dataset import DataSet
from cellseg.loader import forward_passes
from cellseg.tracking import Run
from cellseg.train import BEST_BY, EpochReport, Observer

SHOWN = 4
"""validation images whose predictions are drawn after each epoch"""


class Observers:
    """Several observers as one; the training stops where any of them says so."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = observers

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Tell all."""
        for each in self.observers:
            each.step(metrics, step)

    def epoch(self, report: EpochReport) -> bool:
        """Tell all; True where one asks to stop."""
        answers = [each.epoch(report) for each in self.observers]
        return any(answers)


class Bar:
    """A progress bar with loss and AP50; silent when standard error is not a terminal."""

    def __init__(self, config: RunConfig, images: int, name: str) -> None:
        steps = config.train.epochs * forward_passes(images, config) // config.train.accumulation
        self.bar = tqdm(total=steps, desc=name, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self.shown: dict[str, str] = {}

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Move on by a step."""
        self.shown["loss"] = f"{metrics['train/loss']:.3f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(step - self.bar.n)

    def epoch(self, report: EpochReport) -> bool:
        """Show the epoch's AP50."""
        if BEST_BY in report.metrics:
            self.shown["AP50"] = f"{report.metrics[BEST_BY]:.3f}"
        return False

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        self.bar.close()


class Tracker:
    """Logs a training to an MLflow run."""

    def __init__(self, run: Run, data: DataSet, validation: Sequence[int], config: RunConfig) -> None:
        self.run = run
        self.data = data
        self.validation = validation
        self.config = config
        self.best: dict[str, float] = {}

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the step's figures."""
        self.run.metrics(metrics, step)

    def epoch(self, report: EpochReport) -> bool:
        """Log the epoch's figures, curves, pictures and, where it is the best so far, its checkpoint."""
        if report.metrics:
            if report.metrics[BEST_BY] > self.best.get("best/AP50", -1.0):
                self.best = {name.replace("val/", "best/", 1): value for name, value in report.metrics.items()}
            overall = {name: value for name, value in self.best.items() if name.count("/") == 1}  # val/ has the classes
            self.run.metrics({**report.metrics, **overall}, report.step)
        if report.replayed:
            return False
        if report.curves:
            self.run.figure(plots.precision_recall(report.curves), f"curves/epoch-{report.epoch:03d}.png")
        for index in self.validation[:SHOWN]:
            self._pictures(index, report)
        if report.improved:
            self.run.artifact(report.checkpoint.with_name("best.pt"), "checkpoints")
        self.run.flush()
        return False

    def _pictures(self, index: int, report: EpochReport) -> None:
        """Log an image's cells as they were found, and once, as step 0, as they are: there the UI's slider begins."""
        record = self.data.records[index]
        key = f"validation/{record.name}"
        if report.epoch == 1:
            self.run.image(plots.overlay(self.data.image(index), self.data.label_maps(index)), key, 0)
        if not report.metrics:
            return
        found = [result for result in report.results if result["image_id"] == record.image_id]
        picture = plots.results_overlay(
            self.data.image(index), found, self.data.num_cell_classes, self.config.predict.pq_threshold
        )
        self.run.image(picture, key, report.step)
