"""A study from its first trial to its winner: storage, sampler and pruner, the MLflow run, the plots."""

import fcntl
import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import optuna
from objective import objective, task
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState
from space import LONGEST_WARMUP, first_trials
from sqlalchemy.exc import SQLAlchemyError

from cellseg import tracking
from cellseg.config import flat, to_dict
from cellseg.experiment import Prepared
from cellseg.winner import Winner, write_winner

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_study(name: str, storage: str, prepared: Prepared) -> optuna.Study:
    """The study of this name, made with its first trials where it is new.

    Raises ValueError where a study of this name searched other data or another recipe.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = {"digest": prepared.data.digest, "recipe": prepared.config.recipe}
    with _locked(storage):
        try:
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                load_if_exists=True,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=_warmup_epochs(prepared)),
            )
        except (SQLAlchemyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"--storage {storage}: no study can be kept there ({reason}); is the address right?"
            ) from error
        if not study.user_attrs:
            for key, value in identity.items():
                study.set_user_attr(key, value)
            _enqueue(study, prepared)
    # counted on from the trials so far: the same seed would draw the first trials again
    study.sampler = optuna.samplers.TPESampler(seed=prepared.config.seed + len(study.trials), n_startup_trials=8)
    found = {key: study.user_attrs.get(key) for key in identity}
    if found != identity:
        raise ValueError(f"--study {name}: it searched {found}, this is {identity}; choose another name")
    return study


@contextmanager
def _locked(storage: str) -> Iterator[None]:
    """One process at a time: Optuna's first use of a database is not safe among several."""
    name = f"cellseg-{os.getuid()}-{blake2b(storage.encode(), digest_size=8).hexdigest()}.lock"
    with (Path(tempfile.gettempdir()) / name).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def run_study(
    study: optuna.Study, prepared: Prepared, *, trials: int, runs: Path, results: Path
) -> tuple[Winner, Path]:
    """The winner after `trials` trials in all, and its file. Raises ValueError where no trial came to its end."""
    parent = tracking.find_run("cellseg-search", _parent_tags(study), root=Path.cwd())
    with tracking.start(
        "cellseg-search",
        f"study · {study.study_name}",
        root=Path.cwd(),
        params=flat(prepared.config),
        config=to_dict(prepared.config),
        tags=_parent_tags(study),
        run_id=parent,
    ) as run:
        shared = task(prepared, runs, run.id)
        if _ended(study) < trials:
            stop = MaxTrialsCallback(trials, states=ENDED)
            study.optimize(
                lambda trial: objective(trial, shared),
                callbacks=[_tell, stop],
                catch=(RuntimeError, FloatingPointError),
            )
        winner = _winner(study)
        path = write_winner(winner, results)
        run.metrics({"best/AP50": winner.value}, winner.trial)
        run.artifact(path, "study")
        for name, figure in _figures(study).items():
            run.figure(figure, f"study/{name}.png")
    return winner, path


def _tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Print how a trial ended."""
    how = f"AP50 {trial.value:.3f}" if trial.value is not None else trial.user_attrs.get("prune_reason", "failed")
    print(
        f"trial {trial.number} ({trial.user_attrs.get('anchor_set', 'sampled')}): {trial.state.name}, {how}", flush=True
    )


def _enqueue(study: optuna.Study, prepared: Prepared) -> None:
    for first in first_trials(prepared.config, prepared.plan):
        attributes = {
            "anchor_set": first.name,
            "anchor_sizes": list(first.anchor_sizes),
            "aspect_ratios": list(first.aspect_ratios),
        }
        study.enqueue_trial(first.parameters, user_attrs=attributes)


def _warmup_epochs(prepared: Prepared) -> int:
    """Epochs in which no trial is judged, because the longest warm-up of the space may not be over."""
    return math.ceil(prepared.config.train.epochs * LONGEST_WARMUP)


def _ended(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=ENDED))


def _parent_tags(study: optuna.Study) -> dict[str, str]:
    return {"study": study.study_name, "kind": "study", **study.user_attrs}


def _winner(study: optuna.Study) -> Winner:
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ValueError(f"study {study.study_name}: no trial was trained to its end; search on with more --trials")
    best = study.best_trial
    return Winner(
        study=study.study_name,
        digest=study.user_attrs["digest"],
        recipe=study.user_attrs["recipe"],
        trial=best.number,
        value=float(study.best_value),
        overrides=best.user_attrs["overrides"],
    )


def _figures(study: optuna.Study) -> dict[str, object]:
    """History, importances and parallel coordinates; those that need more trials than there are, are left out."""
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as charts

    figures: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental charts; too few trials to tell parameters apart
        figures["history"] = charts.plot_optimization_history(study).figure
        if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) > 1:
            evaluator = PedAnovaImportanceEvaluator()
            figures["importances"] = charts.plot_param_importances(study, evaluator=evaluator).figure
            figures["parallel_coordinates"] = charts.plot_parallel_coordinate(study).figure
    return figures
