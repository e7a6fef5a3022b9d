"""What tells Optuna of a training, and stops it."""

import time
from collections.abc import Callable, Mapping

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from workers import TakenOver

from cellseg.train import BEST_BY, EpochReport


class Watcher:
    """Reports AP50 to Optuna after each epoch, and stops a trial that the pruner gives up or that is interrupted."""

    def __init__(self, trial: optuna.Trial, epochs: int, stop: Callable[[], bool], pruned: bool = True) -> None:
        self.trial = trial
        self.epochs = epochs
        self.stop = stop
        self.pruned = pruned
        self.reason = ""
        self.interrupted = False
        self.started = time.monotonic()

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing to do."""

    def epoch(self, report: EpochReport) -> bool:
        """Report, and before the last epoch ask whether to go on; raises TakenOver where another has the trial."""
        unfinished = report.epoch < self.epochs
        value = report.metrics.get(BEST_BY)
        try:
            self.trial.set_user_attr("run_id", report.checkpoint.parent.name)
            self.trial.set_user_attr("seconds", round(time.monotonic() - self.started, 1))
            if value is not None:
                self.trial.report(value, report.epoch)
        except UpdateFinishedTrialError as error:
            raise TakenOver from error
        judged = self.pruned and unfinished and value is not None and not report.replayed
        if judged and self.trial.should_prune():
            self.reason = f"AP50 {value:.3f} after epoch {report.epoch} was too far behind the other trials"
        self.interrupted = not self.reason and unfinished and self.stop()
        return bool(self.reason) or self.interrupted
