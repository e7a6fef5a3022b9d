"""The MLflow runs of trials: one a trial, which all of its tries on a machine go on with."""

from collections.abc import Mapping
from pathlib import Path

from cellseg.run_store import one_line_if_lost, opened, patiently

import optuna
from optuna.trial import FrozenTrial
from study import earlier_tries

from cellseg import tracking
from cellseg.config_fields import flat, to_dict
from cellseg.experiment import Prepared

EXPERIMENT = "cellseg-search"


def run_tags(study: str, study_id: str, trial: FrozenTrial) -> dict[str, str]:
    """What a trial's run is found by: the study's name and id, and the number of the trial's first try."""
    first, *_ = [*earlier_tries(trial), trial.number]
    return {"study": study, "study_id": study_id, "trial": str(first)}


def tags_of(trial: optuna.Trial, stage: str) -> dict[str, str]:
    """What the run of a trial that is running is found by: `run_tags`, and whether it is a trial or a final."""
    study = trial.study
    return {**run_tags(study.study_name, study.user_attrs["id"], _frozen(trial)), "stage": stage}


def run_to_go_on_with(trial: optuna.Trial, tags: Mapping[str, str], runs: Path) -> str | None:
    """The run that an earlier try of this trial left in a folder of runs on this machine, if any."""
    run_id = run_of_earlier_try(trial, tags)
    if run_id and not (runs / run_id / "run.json").exists():
        end_run(run_id, "its worker died, before it had a folder or on another machine; this trial has a new run")
        return None
    return run_id


def run_of_earlier_try(trial: optuna.Trial, tags: Mapping[str, str]) -> str | None:
    """The run that an earlier try of this trial left in the store, if any."""
    return find(tags) if earlier_tries(_frozen(trial)) else None


def find(tags: Mapping[str, str]) -> str | None:
    """Id of the newest run of a search with these tags, or None; a store that is away is waited for.

    Raises ValueError, one line, where it stays away.
    """
    with one_line_if_lost():
        return patiently(lambda: tracking.find_run(EXPERIMENT, tags, root=Path.cwd()))


def end_if_running(tags: Mapping[str, str], reason: str) -> None:
    """Mark the run with these tags as FAILED, where its process died before it could say of what."""
    if run_id := find(tags):
        client, _ = opened(Path.cwd())
        with one_line_if_lost():
            running = client.get_run(run_id).info.status == "RUNNING"
        if running:
            end_run(run_id, reason)


def end_run(run_id: str, reason: str) -> None:
    """Mark a run that nobody will go on with as FAILED."""
    with tracking.start(
        EXPERIMENT, "", root=Path.cwd(), params={}, config={}, run_id=run_id, system_metrics=False
    ) as run:
        run.end_as("FAILED", reason)


def track_refused(trial: optuna.Trial, prepared: Prepared, parent: str | None, name: str, reason: str) -> None:
    """A run without a training, so that MLflow has every trial; that of an earlier try goes on."""
    config, digest = prepared.config, prepared.data.digest
    tags = tags_of(trial, "trial")
    with tracking.start(
        EXPERIMENT,
        name,
        root=Path.cwd(),
        params=flat(config),
        config=to_dict(config),
        tags={**tags, "recipe": config.recipe, "digest": digest},
        parent=parent,
        run_id=run_of_earlier_try(trial, tags),
        system_metrics=False,
    ) as run:
        run.dataset(str(prepared.root), digest)
        run.metrics({"anchor_recall": trial.user_attrs["anchor_recall"]}, 0)
        run.end_as("KILLED", reason)
    trial.set_user_attr("run_id", run.id)


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return trial.study.get_trials(deepcopy=False)[trial.number]
