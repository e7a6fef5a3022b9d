"""One trial of a study: anchors that cannot win are refused at once, the others are trained and watched."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from space import suggest

from cellseg import anchors
from cellseg.config import RunConfig, replaced
from cellseg.experiment import Prepared, train_tracked
from cellseg.fingerprint import Plan, fingerprint
from cellseg.label_maps import Array
from cellseg.train import BEST_BY, EpochReport

RECALL_FLOOR = 0.5
"""share of the fitted set's recall under which an anchor set is not trained"""


@dataclass(frozen=True)
class Task:
    """What all trials of a study share."""

    prepared: Prepared
    boxes: Array
    """(N, 4) of the training cells, network pixels"""
    runs: Path
    parent: str
    """MLflow run of the study"""


class Watcher:
    """Reports AP50 to Optuna after each epoch, and stops a trial that the pruner gives up."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.reason = ""

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing to do."""

    def epoch(self, report: EpochReport) -> bool:
        """Report, and ask the pruner."""
        if BEST_BY in report.metrics:
            self.trial.report(report.metrics[BEST_BY], report.epoch)
            if self.trial.should_prune():
                self.reason = f"AP50 {report.metrics[BEST_BY]:.3f} after epoch {report.epoch} is under the median"
        return bool(self.reason)


def task(prepared: Prepared, runs: Path, parent: str) -> Task:
    """What all trials share, measured once."""
    found = fingerprint(prepared.data, prepared.train)
    boxes = np.concatenate([np.empty((0, 4), np.float32), *found.boxes]) * prepared.plan.zoom
    return Task(prepared, boxes, runs, parent)


def objective(trial: optuna.Trial, shared: Task) -> float:
    """Best validation AP50 of one trial. Raises TrialPruned, with `prune_reason` among the trial's attributes."""
    config = trial_config(trial, shared.prepared.config, shared.prepared.plan)
    _refuse_hopeless_anchors(trial, config, shared)
    watcher = Watcher(trial)
    trained = train_tracked(
        replace(shared.prepared, config=config),
        experiment="cellseg-search",
        name=_name(trial, config),
        runs=shared.runs,
        parent=shared.parent,
        tags={"study": trial.study.study_name, "trial": str(trial.number)},
        watchers=[watcher],
    )
    trial.set_user_attr("run_id", trained.run_id)
    if watcher.reason:
        trial.set_user_attr("prune_reason", watcher.reason)
        raise optuna.TrialPruned(watcher.reason)
    return trained.metrics["best/AP50"]


def trial_config(trial: optuna.Trial, config: RunConfig, plan: Plan) -> RunConfig:
    """The study's config with what the trial chose; kept among the trial's attributes for the winner's file."""
    overrides = suggest(trial, config, plan)
    trial.set_user_attr("overrides", overrides)
    return replaced(config, overrides)


def _refuse_hopeless_anchors(trial: optuna.Trial, config: RunConfig, shared: Task) -> None:
    strides = anchors.strides_of(config.model.levels)
    plan = shared.prepared.plan
    fitted = anchors.best_possible_recall(shared.boxes, plan.anchor_sizes, plan.aspect_ratios, strides)
    sizes, ratios = config.model.anchor_sizes, config.model.aspect_ratios
    assert sizes is not None  # suggest sets both
    assert ratios is not None
    recall = anchors.best_possible_recall(shared.boxes, sizes, ratios, strides)
    trial.set_user_attr("anchor_recall", recall)
    if recall < RECALL_FLOOR * fitted:
        reason = f"best possible recall {recall:.2f} is under {RECALL_FLOOR} x {fitted:.2f} of the fitted anchors"
        trial.set_user_attr("prune_reason", reason)
        raise optuna.TrialPruned(reason)


def _name(trial: optuna.Trial, config: RunConfig) -> str:
    """Such as `trial-007 · a8×2.1 · lr 3e-03`."""
    parameters = trial.params
    shape = f"a{parameters['anchor_base']:.3g}×{parameters['anchor_scale']:.2g}"
    return f"trial-{trial.number:03d} · {shape} · lr {config.train.learning_rate:.0e}"
