"""A study: opened under a lock, refused where it was made for something else; and which of its trials count."""

import math
import warnings
from collections.abc import Mapping
from typing import Literal
from uuid import uuid4

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from space import LONGEST_WARMUP, Kind, digest_of, first_trials, parameters_of
from storage import Storage, shown

from cellseg.config import RunConfig
from cellseg.config_fields import flat
from cellseg.experiment import Prepared

FORMAT = 1
"""of what a study holds, 1 where it does not say; raised with all that earlier versions cannot go on with"""
NEEDS = "0.1.0"
"""the first version that reads this format; the study tells it to earlier ones"""
Pruner = Literal["median", "halving", "none"]
VOLATILE = ("device", "dataset.workers")
"""fields that workers of one study may differ in"""
RETRIES = 5
"""of one trial; one that brings its worker down each time is then given up. Those that were stopped do not count."""
MADE = "fields that the space makes of its parameters"
"""name of their digest in a study's identity"""
STARTUP_TRIALS = 4
"""before the median means anything"""


def open_study(
    name: str, storage: Storage, prepared: Prepared, full: RunConfig, space: Kind, pruner: Pruner
) -> optuna.Study:
    """The study of this name, made where it is new.

    prepared is what its trials train on, full the config of its finals. Raises ValueError, with what differs,
    where a study of this name searches other data, another space or around another config, or has a newer format.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = _identity(prepared, space, pruner) | {
        "epochs of the finals": str(full.train.epochs),
        "patience of the finals": str(full.train.patience),
    }
    with storage.locked():
        study = optuna.create_study(
            study_name=name,
            storage=storage.backend,
            load_if_exists=True,
            direction="maximize",
            pruner=pruner_of(pruner, prepared.config),
        )
        if "identity" not in study.user_attrs and not study.trials:
            _begin(study, prepared, identity)
    _refuse_newer(study, storage)
    if changes := changed(_with_defaults(study.user_attrs.get("identity", {}), identity), identity):
        raise ValueError(
            f"--study {name}: it was begun with another setting; choose another name with --study, or go back to "
            + "; ".join(changes)
        )
    return study


def queue_first(study: optuna.Study, prepared: Prepared, space: Kind) -> None:
    """Put the next of the first trials into the queue, where one is left; one at a time, so that new tries go ahead."""
    there = {trial.user_attrs.get("anchor_set") for trial in study.get_trials(deepcopy=False)}
    for first in first_trials(prepared.config, prepared.plan, space):
        if first.name not in there:
            attributes = {
                "anchor_set": first.name,
                "anchor_sizes": list(first.anchor_sizes),
                "aspect_ratios": list(first.aspect_ratios),
            }
            study.enqueue_trial(first.parameters, user_attrs=attributes)
            return


def earlier_tries(trial: FrozenTrial) -> list[int]:
    """Numbers of the tries that a trial is another try of, the first one first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback.retry_history(trial)


def tries(study: optuna.Study) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The last try of each trial, and the tries before it, whose worker died or was stopped."""
    trials = study.get_trials(deepcopy=False)
    again = {number for trial in trials for number in earlier_tries(trial)}
    return [t for t in trials if t.number not in again], [t for t in trials if t.number in again]


def cut_off(trial: FrozenTrial) -> bool:
    """Whether a try ended for no reason of its own: its worker died or was stopped."""
    return trial.state == TrialState.FAIL and "fail_reason" not in trial.user_attrs


def deaths(trial: FrozenTrial) -> int:
    """How often a trial brought its worker down, or died with it, this try included."""
    return int(trial.user_attrs.get("deaths", 0)) + (cut_off(trial) and "interrupted" not in trial.user_attrs)


def given_up(trial: FrozenTrial) -> bool:
    """Whether a trial brought its worker down once too often."""
    return cut_off(trial) and deaths(trial) > RETRIES


def why_given_up(trial: FrozenTrial) -> str:
    """How often a trial brought its worker down, and what the last one died of, where that was seen."""
    cause = trial.user_attrs.get("death")
    return f"its worker died {deaths(trial)} times" + (f", the last time of: {cause}" if cause else "")


def value_of(trial: FrozenTrial) -> float:
    """AP50 of a trial that has one."""
    assert trial.value is not None
    return float(trial.value)


def pruner_of(name: Pruner, config: RunConfig) -> optuna.pruners.BasePruner:
    """The pruner of a name, silent until the longest warm-up of the space is over."""
    warmup_epochs = max(1, math.ceil(config.train.epochs * LONGEST_WARMUP))
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warmup_epochs)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=warmup_epochs, reduction_factor=2)
    return optuna.pruners.NopPruner()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, each in words."""
    differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return [f"{name} {before.get(name, 'not there')}, now {now.get(name, 'not there')}" for name in differing]


def _begin(study: optuna.Study, prepared: Prepared, identity: Mapping[str, str]) -> None:
    """What a new study holds. The identity comes last: a study that was killed before it is begun again."""
    for key, value in (
        ("format", FORMAT),
        ("needs", NEEDS),
        ("digest", prepared.data.digest),
        ("recipe", prepared.config.recipe),
        ("id", uuid4().hex[:8]),
        ("identity", identity),
    ):
        study.set_user_attr(key, value)


def _refuse_newer(study: optuna.Study, storage: Storage) -> None:
    """Raise ValueError where a later version began the study, and this one cannot go on with it."""
    attributes = study.user_attrs
    needed = attributes.get("needs", "its newest version")
    if attributes.get("format", 1) > FORMAT:
        raise ValueError(
            f"--study {study.study_name}: study format {attributes['format']} in {shown(storage.address)}, this "
            f"version reads up to {FORMAT}; update cellseg to {needed} or later, or choose another name with --study"
        )


def _with_defaults(identity: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """An identity with what was not there yet when it was written: fields have their defaults, `suggest` is trusted."""
    return {**_texts(RunConfig()), MADE: now[MADE], **identity}


def _identity(prepared: Prepared, space: Kind, pruner: Pruner) -> dict[str, str]:
    """All that makes two trials comparable, as text."""
    searched = {
        f"space {name}": bounds for name, bounds in parameters_of(prepared.config, prepared.plan, space).items()
    }
    made = digest_of(prepared.config, prepared.plan, space)
    return {"data": prepared.data.digest, "pruner": pruner, **searched, MADE: made, **_texts(prepared.config)}


def _texts(config: RunConfig) -> dict[str, str]:
    """The fields of a config in which the workers of a study agree, as text."""
    return {name: str(value) for name, value in flat(config).items() if name not in VOLATILE}
