"""What a trial does: anchors that cannot win are refused at once, the others are trained and watched."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from space import Kind, suggest
from study import earlier_tries
from workers import TakenOver

from cellseg import anchors, tracking
from cellseg.config import RunConfig
from cellseg.config_fields import flat, replaced, to_dict
from cellseg.experiment import Prepared, Trained, train_tracked
from cellseg.fingerprint import Fingerprint, fingerprint, network_boxes
from cellseg.run_names import run_name
from cellseg.train import BEST_BY, EpochReport

EXPERIMENT = "cellseg-search"
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


def require_validation(whole: Prepared) -> None:
    """Raise ValueError without images to validate on: no trial would have a value."""
    if not whole.validation:
        raise ValueError(
            f"{whole.root}: a search needs images to validate on, found {len(whole.train)} in all and none held back; "
            "add images, or raise --dataset.validation-fraction"
        )


def task(
    prepared: Prepared,
    whole: Prepared,
    *,
    space: Kind,
    yardsticks: bool,
    runs: Path,
    parent: str | None,
    stop: Callable[[], bool],
) -> Task:
    """What all trials share, measured once."""
    return Task(prepared, whole, fingerprint(whole.data, whole.train), space, yardsticks, runs, parent, stop)


def objective(trial: optuna.Trial, shared: Task) -> float:
    """Best validation AP50 of one trial. Raises TrialPruned, with `prune_reason` among the trial's attributes."""
    config = trial_config(trial, shared)
    yardstick = shared.yardsticks and trial.user_attrs.get("anchor_set") in YARDSTICKS
    name = run_name(f"trial-{int(_tags(trial)['trial']):03d}", config)
    reason = _hopeless(trial, config, shared)
    if reason and not yardstick:
        _track_refused(trial, config, shared, name, reason)
    else:
        watcher = Watcher(trial, config.train.epochs, shared.stop, pruned=not yardstick)
        trained = _train(trial, replace(shared.prepared, config=config), shared, name, "trial", watcher)
        reason = watcher.reason
    if reason:
        trial.set_user_attr("prune_reason", reason)
        raise optuna.TrialPruned(reason)
    return trained.metrics["best/AP50"]


def final(trial: optuna.Trial, shared: Task) -> float:
    """Best validation AP50 of a candidate, trained in full with one seed."""
    candidate = trial.suggest_int("candidate", 0, 10**6)
    seed = trial.suggest_int("seed", 0, 2**31 - 1)
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
    tags = {**_tags(trial), "stage": stage}
    trained = train_tracked(
        prepared,
        experiment=EXPERIMENT,
        name=name,
        runs=shared.runs,
        parent=shared.parent,
        run_id=_earlier_run(trial, tags, shared),
        tags=tags,
        watchers=[watcher],
    )
    if watcher.interrupted:
        raise KeyboardInterrupt
    return trained


def empty_folder(trial: FrozenTrial, shared: Task) -> None:
    """Delete the checkpoints of a trial that has ended: MLflow keeps the best one."""
    if run_id := trial.user_attrs.get("run_id"):
        folder = shared.runs / shared.prepared.data.digest / run_id
        for name in ("last.pt", "best.pt"):
            (folder / name).unlink(missing_ok=True)


def _earlier_run(trial: optuna.Trial, tags: Mapping[str, str], shared: Task) -> str | None:
    """The run that an earlier try of this trial left on this machine, if any."""
    run_id = _run_of_earlier_try(trial, tags)
    if run_id and not (shared.runs / shared.prepared.data.digest / run_id / "run.json").exists():
        end_run(run_id, "its worker died, before it had a folder or on another machine; this trial has a new run")
        return None
    return run_id


def _run_of_earlier_try(trial: optuna.Trial, tags: Mapping[str, str]) -> str | None:
    """The run that an earlier try of this trial left in the store, if any."""
    return tracking.find_run(EXPERIMENT, tags, root=Path.cwd()) if earlier_tries(_frozen(trial)) else None


def end_run(run_id: str, reason: str) -> None:
    """Mark a run that nobody will go on with as FAILED."""
    with tracking.start(
        EXPERIMENT, "", root=Path.cwd(), params={}, config={}, run_id=run_id, system_metrics=False
    ) as run:
        run.end_as("FAILED", reason)


def run_tags(study: optuna.Study, trial: FrozenTrial) -> dict[str, str]:
    """What a trial's run is found by: the study, and the number of the trial's first try."""
    first, *_ = [*earlier_tries(trial), trial.number]
    return {"study": study.study_name, "study_id": study.user_attrs["id"], "trial": str(first)}


def _tags(trial: optuna.Trial) -> dict[str, str]:
    return run_tags(trial.study, _frozen(trial))


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return trial.study.get_trials(deepcopy=False)[trial.number]


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


def _track_refused(trial: optuna.Trial, config: RunConfig, shared: Task, name: str, reason: str) -> None:
    """A run without a training, so that MLflow has every trial; that of an earlier try goes on."""
    tags = {**_tags(trial), "stage": "trial"}
    with tracking.start(
        EXPERIMENT,
        name,
        root=Path.cwd(),
        params=flat(config),
        config=to_dict(config),
        tags={**tags, "recipe": config.recipe, "digest": shared.prepared.data.digest},
        parent=shared.parent,
        run_id=_run_of_earlier_try(trial, tags),
        system_metrics=False,
    ) as run:
        run.dataset(str(shared.prepared.root), shared.prepared.data.digest)
        run.metrics({"anchor_recall": trial.user_attrs["anchor_recall"]}, 0)
        run.end_as("KILLED", reason)
    trial.set_user_attr("run_id", run.id)
