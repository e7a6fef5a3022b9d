"""Processes that use one store, or one folder, at once."""

import os
import signal

import pytest
import torch
from commands import ALL, ended, paused, start
from mishaps import pause
from mlflow import MlflowClient
from trainings import SCRIPT, TRAINING

from cellseg import whole_files
from cellseg.checkpoint import load

pytestmark = pytest.mark.usefixtures("no_server")
FIRST_RUN = """
from pathlib import Path
from cellseg import tracking
with tracking.start("cells", "one", root=Path(), params={"a": 1}, config={}, system_metrics=False) as run:
    for step in range(1, 51):
        run.metrics({"loss": 1 / step}, step)
        if step % 10 == 0:
            run.flush()
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


@pytest.mark.skipif(not ALL, reason="`make faults` trains two at once too")
def test_two_trainings_in_one_folder_keep_apart(folder, tmp_path):
    together = [start(tmp_path, SCRIPT, *TRAINING, "--data", folder, log=tmp_path / f"log{n}") for n in range(2)]
    assert [ended(each) for each in together] == [0, 0]
    first, second = (load(path) for path in tmp_path.glob("experiments/runs/*/*/last.pt"))
    for key, tensor in first.model.items():
        assert torch.equal(tensor, second.model[key])


def test_a_run_that_is_being_trained_is_not_resumed_beside_it(folder, tmp_path):
    second_epoch = {"fatal": "cellseg.train:train_epoch", "call": 2, "fault": pause}
    training = start(tmp_path, SCRIPT, *TRAINING, "--data", folder, log=tmp_path / "log", **second_epoch)
    paused(training)
    (last,) = tmp_path.glob("experiments/runs/*/*/last.pt")
    run_id = last.parent.name
    before = last.read_bytes()
    second = start(tmp_path, SCRIPT, "--resume", run_id, log=tmp_path / "second", before=lose_no_time)
    assert ended(second) == 2
    assert (tmp_path / "second").read_text().splitlines()[-1] == (
        f"error: {last.parent.relative_to(tmp_path)}: another process writes there; wait for its end, or stop it"
    )
    assert last.read_bytes() == before
    assert MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(run_id).info.status == "RUNNING"
    os.kill(training.pid, signal.SIGCONT)
    assert ended(training) == 0


def lose_no_time():
    """Refuse at once what another process holds."""
    whole_files.LEAVING_SECONDS = 0.0
