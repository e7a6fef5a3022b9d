"""Claims: which trial a worker runs next, the interrupted ones first."""

import os
import warnings
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from storage import Storage
from study import cut_off, deaths, given_up, tries

Fill = Callable[[optuna.Study], None]
RANDOM_TRIALS = 8
"""drawn at random before the sampler learns"""
OF_A_TRY = ("worker", "interrupted", "death", "seconds", "prune_reason")
"""attributes that a new try of a trial does not inherit"""


def claim(
    study: optuna.Study, storage: Storage, wanted: int, seed: int, fill: Fill | None = None
) -> optuna.Trial | None:
    """A trial that is now this worker's; None where `wanted` were claimed. To be called under the storage's lock.

    What is drawn follows from the seed and the trial's number, so that no two workers draw the same.
    """
    _queue_again(study)
    last, _ = tries(study)
    if sum(trial.state != TrialState.WAITING for trial in last) >= wanted:
        return None
    if fill and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        fill(study)
    drawn = int(np.random.SeedSequence([seed, len(study.get_trials(deepcopy=False))]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=drawn, n_startup_trials=RANDOM_TRIALS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a heartbeat without Study.optimize: here it is `heartbeat` below
        trial = study.ask()
    storage.beat(study.study_name, trial.number)
    trial.set_user_attr("worker", worker_name(os.getpid()))
    return trial


def worker_name(process: int) -> str:
    """Of a process on this machine."""
    return f"{os.uname().nodename}:{process}"


def bury(study: optuna.Study, storage: Storage, worker: str, death: str) -> bool:
    """Whether a dead worker had a trial of this study; it is then queued again, without a wait for heartbeats."""
    with storage.locked():
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker") == worker:
                storage.mark(study.study_name, trial.number, "death", death)
                study.tell(trial.number, state=TrialState.FAIL)
                return True
    return False


def _queue_again(study: optuna.Study) -> None:
    """Trials whose worker died or was stopped: FAIL, and a new try in the queue."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)
    last, _ = tries(study)
    for trial in last:
        died_while_claiming = trial.state == TrialState.RUNNING and "worker" not in trial.user_attrs
        if died_while_claiming:
            study.tell(trial.number, state=TrialState.FAIL)
            _try_again(study, study.get_trials(deepcopy=False)[trial.number])
        elif cut_off(trial) and not given_up(trial):
            _try_again(study, trial)


def _try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    again = deepcopy(trial)
    again.user_attrs = {name: value for name, value in trial.user_attrs.items() if name not in OF_A_TRY}
    again.user_attrs["deaths"] = deaths(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback()(study, again)
