"""Workers of a study: each claims a trial, runs it and tells how it ended, until none is left; any of them may die.

A trial whose worker died is found by its silent heartbeat, one whose worker was stopped by its mark; both are queued
again and go on from the checkpoint of their last epoch. One that outlives none of its workers is given up.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import optuna
from claiming import Fill, claim
from mendable import mendable, told
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from storage import Storage

from cellseg.wording import first_line

Objective = Callable[[optuna.Trial], float]
Ended = Callable[[FrozenTrial], None]
FAILURES_IN_A_ROW = 3
"""after which a worker gives up: the cause is then not in the trial"""
POLL_SECONDS = 2.0


class TakenOver(BaseException):
    """Another worker has this trial: this one was silent for long. No Exception, since its run goes on there."""


class Stop:
    """Whether to end soon: after Ctrl-C or SIGTERM, or once the process that started this worker is gone.

    The second Ctrl-C ends at once, with KeyboardInterrupt.
    """

    def __init__(self, parent: int | None = None) -> None:
        self.asked = False
        self.parent = parent

    def __call__(self) -> bool:
        """Whether to end soon."""
        return self.asked or (self.parent is not None and os.getppid() != self.parent)

    def __enter__(self) -> "Stop":
        self._before = {each: signal.signal(each, self._ask) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this epoch; the same command goes on", file=sys.stderr, flush=True)


def work(
    study: optuna.Study,
    storage: Storage,
    wanted: int,
    seed: int,
    run: Objective,
    stop: Stop,
    *,
    fill: Fill | None = None,
    ended: Ended = lambda trial: None,
) -> None:
    """Run trials until `wanted` have ended, in whatever worker; waits for those of the others.

    Where no trial waits, fill may queue one; else the sampler draws it. `ended` follows once a trial's end is stored.
    Raises KeyboardInterrupt when stopped, ValueError after FAILURES_IN_A_ROW.
    """
    failures: list[str] = []
    while not stop():
        with storage.locked():
            trial = claim(study, storage, wanted, seed, fill)
            waiting_for = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if trial is not None:
            reason = _run(study, storage, trial, run, ended)
            failures = [*failures, reason] if reason else []
            if len(failures) == FAILURES_IN_A_ROW:
                raise ValueError(
                    f"{len(failures)} trials failed one after another, the last with {reason}; "
                    f"mend that, then give the same command with more --trials"
                )
        elif waiting_for:
            time.sleep(POLL_SECONDS)
        else:
            return
    raise KeyboardInterrupt


@contextmanager
def heartbeat(study: optuna.Study, storage: Storage, trial: int) -> Iterator[None]:
    """Beats while the block runs; a storage that is away for a moment does not end it."""
    done = threading.Event()
    interval = storage.backend.get_heartbeat_interval()

    def beat() -> None:
        while not done.wait(interval):
            try:
                storage.beat(study.study_name, trial)
            except (SQLAlchemyError, StorageInternalError) as error:
                print(f"trial {trial}: no heartbeat ({first_line(error)})", file=sys.stderr, flush=True)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _run(study: optuna.Study, storage: Storage, trial: optuna.Trial, run: Objective, ended: Ended) -> str:
    """Run a trial and tell how it ended; why it failed, or nothing."""
    reason, value, state = "", None, TrialState.FAIL
    try:
        with heartbeat(study, storage, trial.number):
            value = run(trial)
        state = TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except TakenOver:
        pass  # seen below
    except (KeyboardInterrupt, SystemExit):
        _cut_off(study, trial, interrupted=True)
        raise
    except Exception as error:
        reason = told(error)
        if mendable(error):
            _cut_off(study, trial, death=reason)
            raise
    gc.collect()  # the memory that a failed trial took is the next one's
    if study.get_trials(deepcopy=False)[trial.number].state != TrialState.RUNNING:
        print(f"trial {trial.number}: this worker was silent for long, so another one took it over", flush=True)
        return ""
    if reason:
        trial.set_user_attr("fail_reason", reason)
    frozen = study.tell(trial, value, state)
    ended(frozen)
    _tell(frozen)
    return reason


def _cut_off(study: optuna.Study, trial: optuna.Trial, **why: object) -> None:
    """Mark a try that the next worker goes on with."""
    with suppress(UpdateFinishedTrialError, ValueError):  # another worker has it already
        for name, value in why.items():
            trial.set_user_attr(name, value)
        study.tell(trial, state=TrialState.FAIL)


def _tell(trial: FrozenTrial) -> None:
    """Print how a trial ended."""
    attributes = trial.user_attrs
    reason = attributes.get("prune_reason") or attributes.get("fail_reason")
    how = reason or f"AP50 {trial.value:.3f}"
    print(f"trial {trial.number} ({_kind(trial)}): {trial.state.name}, {how}", flush=True)


def _kind(trial: FrozenTrial) -> str:
    if "candidate" in trial.user_attrs:
        return f"final of trial {trial.user_attrs['candidate']}, seed {trial.user_attrs['seed']}"
    return str(trial.user_attrs.get("anchor_set", "sampled"))
