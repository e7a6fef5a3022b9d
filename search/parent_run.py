"""The MLflow run of a study, which the runs of its trials are children of."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cellseg.run_store import one_line_if_lost

import optuna
import trial_runs
from figures import figures_of
from ladder import finals_name
from optuna.trial import TrialState
from storage import Storage
from study import given_up, why_given_up
from study_outcome import Outcome, importances, saved, winner_of
from trial_runs import EXPERIMENT, end_if_running, run_tags

from cellseg import tracking
from cellseg.config_fields import flat, to_dict
from cellseg.experiment import Prepared


def find(study: optuna.Study) -> str | None:
    """The id of a study's run in the store that this machine tracks to, or None; raises as trial_runs.find."""
    return trial_runs.find(_tags(study))


@contextmanager
def opened(study: optuna.Study, storage: Storage, whole: Prepared) -> Iterator[tracking.Run]:
    """The run of a study, made where there is none; calls that help each other share it."""
    with ExitStack() as stack:
        with storage.locked(), one_line_if_lost():
            run = stack.enter_context(
                tracking.start(
                    EXPERIMENT,
                    f"study · {study.study_name}",
                    root=Path.cwd(),
                    params=flat(whole.config),
                    config=to_dict(whole.config),
                    tags=_tags(study),
                    run_id=tracking.find_run(EXPERIMENT, _tags(study), root=Path.cwd()),
                )
            )
        run.dataset(str(whole.root), whole.data.digest)
        yield run


def log(run: tracking.Run, study: optuna.Study, outcome: Outcome, files: Mapping[str, Path]) -> None:
    """Keep the report, also as the description, its figures and its numbers with the run."""
    if "study.md" in files:
        run.describe(files["study.md"].read_text())
    for path in files.values():
        run.artifact(path, "study")
    for name, figure in figures_of(study, outcome).items():
        run.figure(figure, f"study/{name}.png")
    spared = saved(outcome)
    numbers = {
        "study/refused_trials": spared.refused,
        "study/refused_seconds_saved": spared.refused_seconds,
        "study/pruned_trials": spared.pruned,
        "study/pruned_seconds_saved": spared.pruned_seconds,
        **{f"importance/{name}": share for name, share in importances(outcome).items()},
    }
    if outcome.ended(TrialState.COMPLETE):
        winner = winner_of(outcome)
        numbers["best/AP50"] = winner.value
        if winner.low is not None and winner.high is not None:
            numbers |= {"best/AP50_low": winner.low, "best/AP50_high": winner.high}
    run.metrics(numbers, sum(trial.state.is_finished() for trial in outcome.all_tries))
    for name, trials in ((study.study_name, outcome.trials), (finals_name(study), outcome.finals)):
        for trial in filter(given_up, trials):
            end_if_running(run_tags(name, study.user_attrs["id"], trial), why_given_up(trial))


def _tags(study: optuna.Study) -> dict[str, str]:
    attributes = study.user_attrs
    return {
        "kind": "study",
        "study": study.study_name,
        "study_id": attributes["id"],
        "digest": attributes["digest"],
        "recipe": attributes["recipe"],
    }
