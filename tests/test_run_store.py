import os
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from cellseg import run_store, saved_views

pytestmark = pytest.mark.usefixtures("no_server")


def answered(status):
    answer = requests.Response()
    answer.status_code = status
    return answer


def test_a_root_has_a_store_once_it_was_opened_and_not_by_asking(tmp_path):
    assert not run_store.exists(tmp_path)
    assert list(tmp_path.iterdir()) == []
    client, folder = run_store.opened(tmp_path)
    assert run_store.exists(tmp_path)
    assert folder == tmp_path / "mlruns"
    assert client.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    name = run_store.experiment_id(client, "cells", folder)
    assert run_store.experiment_id(client, "cells", folder) == name
    made = client.get_experiment(name)
    assert made.artifact_location == f"file://{tmp_path}/mlruns/cells"
    assert made.tags == {"mlflow.experimentKind": "custom_model_development", **saved_views.tags()}


def test_a_server_that_is_named_is_taken_for_a_store_and_chooses_where_files_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run_store.exists(tmp_path)
    client, folder = run_store.opened(tmp_path)
    assert (client.tracking_uri, folder) == ("http://127.0.0.1:9", None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_mlflow_cannot_use_is_named_and_stays_as_it_is(tmp_path):
    database = tmp_path / "mlflow.db"
    database.write_text("no database")
    with pytest.raises(ValueError, match=rf"^{database}: MLflow cannot use it .*file is not a database.*move it away"):
        run_store.opened(tmp_path)
    assert database.read_text() == "no database"


def test_a_database_of_another_mlflow_is_not_used(tmp_path):
    run_store.opened(tmp_path / "now")
    earlier = shutil.copytree(tmp_path / "now", tmp_path / "earlier")
    with closing(sqlite3.connect(earlier / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(ValueError, match=r"out-of-date database schema .*mlflow db upgrade") as told:
        run_store.opened(earlier)
    assert "\n" not in str(told.value)


def test_who_holds_the_lock_is_alone(tmp_path):
    order = []

    def second():
        with run_store.locked(tmp_path):
            order.append("second")

    waiting = threading.Thread(target=second)
    with run_store.locked(tmp_path):
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_what_mlflow_refuses_is_told_in_one_line():
    with (
        pytest.raises(ValueError, match=r"^MLflow: no such run; is its store there") as caught,
        run_store.one_line_if_lost(),
    ):
        raise MlflowException("no such run\nat line 7\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (MlflowException("API request failed with exception"), True),
        (MlflowException("busy", TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("too long", INVALID_PARAMETER_VALUE), False),
        (requests.ConnectionError("refused"), True),
        (requests.HTTPError(response=answered(503)), True),
        (requests.HTTPError(response=answered(403)), False),
        (OSError("no space left"), False),
    ],
)
def test_a_store_is_away_where_it_does_not_answer_or_cannot_now(error, is_away):
    assert run_store.away(error) is is_away


def test_a_store_that_is_away_is_waited_for_and_one_that_refuses_is_not(monkeypatch):
    monkeypatch.setattr(run_store, "PAUSE_SECONDS", 0.0)
    errors = [MlflowException("API request failed"), MlflowException("again")]

    def succeed_in_the_end():
        if errors:
            raise errors.pop()
        return 3

    assert run_store.patiently(succeed_in_the_end) == 3
    errors.append(MlflowException("too long", INVALID_PARAMETER_VALUE))
    with pytest.raises(MlflowException, match="too long"):
        run_store.patiently(succeed_in_the_end)
    monkeypatch.setattr(run_store, "PATIENCE_SECONDS", -1.0)
    errors.append(MlflowException("API request failed"))
    with pytest.raises(MlflowException, match="API request failed"):
        run_store.patiently(succeed_in_the_end)


def test_mlflow_reports_nothing_home_and_draws_no_bars():
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] == "false"
