"""A tracking server that goes away while a training goes on: all that was logged arrives, though later."""

import os
import signal
from contextlib import contextmanager

import pytest
from commands import ALL, ended, start, until
from mlflow import MlflowClient
from mlflow_server import free_port, serving, wait_for
from trainings import SCRIPT, TRAINING, only_what_is_left

from cellseg.checkpoint import load

pytestmark = [
    pytest.mark.usefixtures("no_server"),
    pytest.mark.skipif(not ALL, reason="`make faults` runs it: two servers for each training"),
]

EPOCHS = 6


class Server:
    """A server that can be ended as by a power cut, and be there again at the same address with the same store."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def there(self):
        store = ("--backend-store-uri", f"sqlite:///{self.folder}/server.db")
        kept = ("--artifacts-destination", str(self.folder / "kept"))
        with serving(self.folder, self.folder / "log", *store, *kept, port=self.port) as url:
            wait_for(url, self.folder / "log")
            yield MlflowClient(url)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    return Server(tmp_path / "server")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def training(place, data, server):
    options = [*TRAINING, "--data", data, "--train.epochs", str(EPOCHS)]
    return start(place, SCRIPT, *options, log=place / "log", environment={"MLFLOW_TRACKING_URI": server.url})


def assert_complete(client, place):
    """Every step of the checkpoint's own history is in the one run, and what is logged once an epoch or at the end."""
    (last,) = place.glob("experiments/runs/*/*/last.pt")
    run = client.get_run(last.parent.name)
    assert run.info.status == "FINISHED"
    expected = {}
    for past in load(last).training["history"]:
        first = past["step"] - len(past["steps"]) + 1
        for step, figures in [*enumerate(past["steps"], first), (past["step"], past["metrics"])]:
            for name, value in figures.items():
                expected.setdefault(name, []).append((step, value))
    assert len(expected["train/loss"]) == 12
    for name, points in expected.items():
        found = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        assert found == points, name
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert files == {"checkpoints", "config.json", "curves", "images", "plan.json"}
    assert len(client.list_artifacts(run.info.run_id, "curves")) == 6
    assert client.get_model_version_by_alias("cellseg", "best").run_id == run.info.run_id
    assert not list(place.glob("mlruns/unsent/*.jsonl"))


def test_a_server_that_comes_back_gets_what_was_logged_meanwhile(folder, place, server):
    with server.there():
        process = training(place, folder, server)
        until(lambda: list(place.glob("experiments/runs/*/*/last.pt")), process)
    until(lambda: list(place.glob("mlruns/unsent/*.jsonl")), process)
    os.kill(process.pid, signal.SIGSTOP)  # while the server boots, which takes longer than this training
    with server.there() as client:
        os.kill(process.pid, signal.SIGCONT)
        assert ended(process) == 0, (place / "log").read_text()
        assert_complete(client, place)
    said = (place / "log").read_text()
    assert "MLflow is away" in said
    assert "messages that waited have reached MLflow" in said


def test_what_a_server_missed_that_stays_away_is_sent_by_a_command(folder, place, server):
    with server.there():
        process = training(place, folder, server)
        until(lambda: list(place.glob("experiments/runs/*/*/last.pt")), process)
    assert ended(process) == 0, (place / "log").read_text()
    said = (place / "log").read_text()
    assert "`cellseg track sync` sends it" in said
    assert "registered once MLflow answers again" in said
    environment = {"MLFLOW_TRACKING_URI": server.url}
    too_early = start(place, "cellseg", "track", "sync", log=place / "early", environment=environment)
    assert ended(too_early) == 2
    assert (place / "early").read_text().startswith("error: MLflow: ")
    with server.there() as client:
        sync = start(place, "cellseg", "track", "sync", log=place / "sync", environment=environment)
        assert ended(sync) == 0, (place / "sync").read_text()
        assert_complete(client, place)


def test_a_training_that_is_killed_while_the_server_is_away_tells_all_when_it_is_resumed(folder, place, server):
    with server.there():
        process = training(place, folder, server)
        until(lambda: list(place.glob("experiments/runs/*/*/last.pt")), process)
    until(lambda: list(place.glob("mlruns/unsent/*.jsonl")), process)
    process.kill()
    assert ended(process) == -signal.SIGKILL
    (run,) = place.glob("experiments/runs/*/*/run.json")
    environment = {"MLFLOW_TRACKING_URI": server.url}
    left = only_what_is_left(place, EPOCHS)
    with server.there() as client:
        again = start(place, SCRIPT, "--resume", run.parent.name, log=place / "log", environment=environment, **left)
        assert ended(again) == 0, (place / "log").read_text()
        assert_complete(client, place)
