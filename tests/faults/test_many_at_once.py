"""Processes that use one store, or one folder, at once."""

import signal

import pytest
from commands import ended, start
from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("no_server")
FIRST_RUN = """
from pathlib import Path
from cellseg import tracking
with tracking.start("cells", "one", root=Path(), params={"a": 1}, config={}, system_metrics=False) as run:
    for step in range(1, 51):
        run.metrics({"loss": 1 / step}, step)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "first_run.py"
    path.write_text(FIRST_RUN)
    return path


def test_eight_first_runs_share_the_store_that_one_of_them_makes_though_one_is_killed_in_it(tmp_path, script):
    killed = start(tmp_path, script, log=tmp_path / "log", fatal="alembic.op:batch_alter_table", call=3)
    assert ended(killed) == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    together = [start(tmp_path, script, log=tmp_path / "log") for _ in range(8)]
    assert [ended(each) for each in together] == [0] * 8, (tmp_path / "log").read_text()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("cells").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    for run in runs:
        assert [each.step for each in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 51))
    assert sorted(path.name for path in (tmp_path / "mlruns").iterdir()) == [".lock", "cells"]
