"""What a trial does: anchors that cannot win are refused at once, the others are trained and watched."""

import sys
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial
from space import Kind, suggest
from trial_runs import EXPERIMENT, end_if_running, run_to_go_on_with, tags_of, track_refused
from watcher import Watcher

from cellseg import anchors
from cellseg.config import RunConfig
from cellseg.config_fields import replaced
from cellseg.experiment import Prepared, Trained, train_tracked
from cellseg.fingerprint import Fingerprint, network_boxes
from cellseg.run_names import run_name
from cellseg.whole_files import InUseError

RECALL_FLOOR = 0.5
"""share of the fitted set's recall under which an anchor set is not trained"""
YARDSTICKS = ("torchvision", "reference")
"""first trials that show what the winner gains; they are trained to their end whatever their anchors"""


@dataclass(frozen=True)
class Task:
    """What all trials of a study share."""

    prepared: Prepared
    """of the trials: a short schedule on a subset"""
    whole: Prepared
    """of the finalists: the full schedule on all data"""
    cells: Fingerprint
    """of all training images"""
    space: Kind
    yardsticks: bool
    """whether they are trained even if their anchors cannot win"""
    runs: Path
    parent: str | None
    """MLflow run of the study"""
    stop: Callable[[], bool]
    """whether to end after this epoch"""


def objective(trial: optuna.Trial, shared: Task) -> float:
    """Best validation AP50 of one trial. Raises TrialPruned, with `prune_reason` among the trial's attributes."""
    config = trial_config(trial, shared)
    yardstick = shared.yardsticks and trial.user_attrs.get("anchor_set") in YARDSTICKS
    name = run_name(f"trial-{int(tags_of(trial, 'trial')['trial']):03d}", config)
    prepared = replace(shared.prepared, config=config)
    reason = _hopeless(trial, config, shared)
    if reason and not yardstick:
        track_refused(trial, prepared, shared.parent, name, reason)
    else:
        watcher = Watcher(trial, config.train.epochs, shared.stop, pruned=not yardstick)
        trained = _train(trial, prepared, shared, name, "trial", watcher)
        reason = watcher.reason
    if reason:
        trial.set_user_attr("prune_reason", reason)
        raise optuna.TrialPruned(reason)
    return trained.metrics["best/AP50"]


def final(trial: optuna.Trial, shared: Task, wanted: Container[tuple[int, int]]) -> float:
    """Best validation AP50 of a candidate, trained in full with one seed.

    Raises TrialPruned where this candidate and seed are not wanted any more.
    """
    candidate = trial.suggest_int("candidate", 0, 10**6)
    seed = trial.suggest_int("seed", 0, 2**31 - 1)
    if (candidate, seed) not in wanted:
        reason = "queued by an earlier call, and no longer among the best or the seeds"
        end_if_running(tags_of(trial, "final"), f"its worker died; {reason}")
        trial.set_user_attr("prune_reason", reason)
        raise optuna.TrialPruned(reason)
    config = replaced(shared.whole.config, {**trial.user_attrs["overrides"], "seed": seed})
    watcher = Watcher(trial, config.train.epochs, shared.stop, pruned=False)
    name = run_name(f"final-{candidate:03d} seed {seed}", config)
    trained = _train(trial, replace(shared.whole, config=config), shared, name, "final", watcher)
    return trained.metrics["best/AP50"]


def trial_config(trial: optuna.Trial, shared: Task) -> RunConfig:
    """The study's config with what the trial chose; kept among the trial's attributes for the winner's file."""
    config = shared.prepared.config
    overrides = suggest(trial, config, shared.prepared.plan, shared.space)
    trial.set_user_attr("overrides", overrides)
    return replaced(config, overrides)


def _train(trial: optuna.Trial, prepared: Prepared, shared: Task, name: str, stage: str, watcher: Watcher) -> Trained:
    """A tracked training; that of a trial whose worker died or was stopped goes on in the same MLflow run."""
    tags = tags_of(trial, stage)
    run_id = run_to_go_on_with(trial, tags, shared.runs / prepared.data.digest)
    train = partial(
        train_tracked,
        prepared,
        experiment=EXPERIMENT,
        name=name,
        runs=shared.runs,
        parent=shared.parent,
        run_id=run_id,
        tags=tags,
        watchers=[watcher],
    )
    trained = _once_alone(train, shared.stop)
    if watcher.interrupted:
        raise KeyboardInterrupt
    return trained


def _once_alone(train: Callable[[], Trained], stop: Callable[[], bool]) -> Trained:
    """A training that waits for the worker that it was taken over from, which notices at the end of its epoch."""
    while not stop():
        try:
            return train()
        except InUseError as error:
            print(f"waiting: {error}", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def empty_folder(trial: FrozenTrial, shared: Task) -> None:
    """Delete the checkpoints of a trial that has ended: MLflow keeps the best one."""
    if run_id := trial.user_attrs.get("run_id"):
        folder = shared.runs / shared.prepared.data.digest / run_id
        for name in ("last.pt", "best.pt"):
            (folder / name).unlink(missing_ok=True)


def _hopeless(trial: optuna.Trial, config: RunConfig, shared: Task) -> str:
    """Why the anchors of a trial cannot win, or nothing; its best possible recall is kept as an attribute."""
    started = time.monotonic()
    plan = shared.whole.plan
    floor = RECALL_FLOOR * _recall(shared.whole.config, plan.anchor_sizes, plan.aspect_ratios, shared.cells)
    assert config.model.anchor_sizes is not None  # suggest sets both
    assert config.model.aspect_ratios is not None
    recall = _recall(config, config.model.anchor_sizes, config.model.aspect_ratios, shared.cells)
    trial.set_user_attr("anchor_recall", recall)
    trial.set_user_attr("recall_ms", round(1000 * (time.monotonic() - started), 1))
    if recall >= floor:
        return ""
    return f"best possible recall {recall:.2f} is under {floor:.2f}, {RECALL_FLOOR:.0%} of the fitted anchors'"


def _recall(config: RunConfig, sizes: anchors.Sizes, ratios: anchors.Ratios, cells: Fingerprint) -> float:
    boxes = network_boxes(cells, config.predict)
    return anchors.best_possible_recall(boxes, sizes, ratios, anchors.strides_of(config.model.levels))
