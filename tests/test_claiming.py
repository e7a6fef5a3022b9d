"""Which trial comes next, and what becomes of one whose worker died; test_study.py and test_workers.py claim more."""

import errno
import os

import optuna
import pytest
from claiming import bury, claim, worker_name
from optuna.trial import TrialState
from storage import open_storage
from study import earlier_tries, given_up, why_given_up
from workers import Stop, work


@pytest.fixture
def opened(tmp_path):
    """A study without trials and its storage."""
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}", heartbeat=60)
    return optuna.create_study(study_name="s", storage=storage.backend, direction="maximize"), storage


def test_the_trial_of_a_dead_worker_is_queued_again_at_once_and_those_of_others_are_not(opened, monkeypatch):
    study, storage = opened
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "getpid", lambda: 4321)
        claim(study, storage, 3, 0)
    claim(study, storage, 3, 0)
    assert bury(study, storage, worker_name(4321), "killed (SIGKILL)")
    assert not bury(study, storage, worker_name(4321), "killed (SIGKILL)")
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.RUNNING]
    again = claim(study, storage, 3, 0)
    assert earlier_tries(study.trials[again.number]) == [0]
    assert "death" not in again.user_attrs


def test_a_trial_that_kills_each_of_its_workers_is_given_up_with_what_it_died_of(opened):
    study, storage = opened
    deaths = 0
    while claim(study, storage, 1, 0):
        assert bury(study, storage, worker_name(os.getpid()), "killed (SIGKILL): probably out of memory")
        deaths += 1
    assert given_up(study.trials[-1])
    assert why_given_up(study.trials[-1]) == (
        f"its worker died {deaths} times, the last time of: killed (SIGKILL): probably out of memory"
    )


def test_a_trial_that_runs_out_of_memory_or_whose_settings_cannot_be_trained_fails_alone_with_its_cause(opened):
    study, storage = opened
    outcomes = iter([OSError(errno.ENOMEM, "Cannot allocate memory"), 0.1, ValueError("more than 1 value"), 0.2])

    def run(trial):
        if isinstance(outcome := next(outcomes), Exception):
            raise outcome
        return outcome

    work(study, storage, 4, 0, run, Stop())
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    reasons = [trial.user_attrs.get("fail_reason") for trial in study.trials]
    assert reasons[::2] == ["OSError: [Errno 12] Cannot allocate memory", "ValueError: more than 1 value"]


def test_a_try_does_not_inherit_why_the_one_before_was_to_be_stopped(opened):
    study, storage = opened
    trial = claim(study, storage, 1, 0)
    trial.set_user_attr("prune_reason", "too far behind")  # and its worker dies before it tells the end
    bury(study, storage, worker_name(os.getpid()), "killed (SIGKILL)")
    assert "prune_reason" not in claim(study, storage, 1, 0).user_attrs
