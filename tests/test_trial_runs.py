"""The MLflow runs of trials: found while the store is away for a moment, and ended where nobody else does."""

import shutil

import optuna
import pytest
import trial_runs
from mendable import mendable
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState
from study import earlier_tries

from cellseg import run_store, tracking

TAGS = {"study": "s", "study_id": "x", "trial": "0"}


@pytest.fixture
def client(store, tmp_path, monkeypatch):
    """Of a store in a folder of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(store, tmp_path)
    (tmp_path / "mlruns").mkdir()
    return run_store.opened(tmp_path)[0]


def begun(client):
    """The id of a run that is RUNNING, as a killed process leaves it."""
    experiment = run_store.experiment_id(client, trial_runs.EXPERIMENT, None)
    return client.create_run(experiment, tags=TAGS).info.run_id


def test_a_run_whose_process_was_killed_ends_with_the_reason_and_one_that_told_its_own_keeps_it(client):
    killed = begun(client)
    trial_runs.end_if_running(TAGS, "its worker died 6 times")
    assert client.get_run(killed).info.status == "FAILED"
    assert client.get_run(killed).data.tags["failure"] == "its worker died 6 times"
    trial_runs.end_if_running(TAGS, "something else")
    assert client.get_run(killed).data.tags["failure"] == "its worker died 6 times"


@pytest.fixture
def away(monkeypatch):
    """How often the store does not answer before it does."""
    times = []

    def find_run(*_, **__):
        if times:
            raise times.pop()
        return "run-1"

    monkeypatch.setattr(tracking, "find_run", find_run)
    monkeypatch.setattr(run_store, "PAUSE_SECONDS", 0.0)
    return times


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_trial_that_goes_on_while_the_store_is_away_waits_for_it(away):
    study = optuna.create_study()
    study.set_user_attr("id", "x")
    study.ask()
    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, study.tell(0, state=TrialState.FAIL))
    away.extend(MlflowException("no answer") for _ in range(3))
    trial = study.ask()
    assert earlier_tries(study.trials[trial.number]) == [0]
    assert trial_runs.run_of_earlier_try(trial, TAGS) == "run-1"
    assert away == []


def test_a_store_that_stays_away_ends_the_worker_in_one_line_and_not_the_trial(away, monkeypatch):
    monkeypatch.setattr(run_store, "PATIENCE_SECONDS", -1.0)
    away.append(MlflowException("no answer\nand more"))
    with pytest.raises(ValueError, match="MLflow: no answer; is its store there") as told:
        trial_runs.find(TAGS)
    assert mendable(told.value)
