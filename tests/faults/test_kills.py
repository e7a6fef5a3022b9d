"""A training that is killed, wherever that is, and resumed ends as the one that was never killed."""

import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch
from commands import ended, ended_or_killed, start, warm_up
from mlflow import MlflowClient

from cellseg.checkpoint import load

SCRIPT = "experiments/final_train.py"
TRAINING = [
    *("--recipe", "demo", "--device", "cpu", "--augment.crop", "64", "--train.epochs", "3", "--train.batch", "1"),
    *(
        "--train.steps-per-epoch",
        "2",
        "--model.fpn-channels",
        "16",
        "--model.box-head",
        "16",
        "--model.mask-channels",
        "8",
    ),
    *("--predict.zoom", "1", "--predict.detections", "60", "--predict.proposals", "100", "--dataset.workers", "0"),
]
PLACES = [
    ("torch:save", 1),
    ("torch:save", 4),
    ("cellseg.train:predict", 2),
    ("cellseg.train:write_checkpoints", 2),
    ("mlflow:MlflowClient.log_batch", 1),
    ("mlflow:MlflowClient.log_batch", 3),
    ("mlflow:MlflowClient.log_artifact", 1),
    ("mlflow:MlflowClient.set_terminated", 1),
    ("cellseg.tracking:register", 1),
    ("mlflow:MlflowClient.create_model_version", 1),
    ("mlflow:MlflowClient.set_registered_model_alias", 1),
    ("pathlib:Path.replace", 2),
]
ALL = bool(os.environ.get("CELLSEG_FAULTS"))
QUICK = [PLACES[1], PLACES[2], PLACES[5]]
TIMES = 10
"""more kills at least, at moments drawn at random, of one training after the other, each resumed until it ends"""


@pytest.fixture
def place(store, tmp_path):
    """Where a training is run, beside a store."""
    shutil.copy(store, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(folder, store, tmp_path_factory):
    """What a training that was never killed leaves, and the seconds that it took."""
    place = tmp_path_factory.mktemp("whole")
    shutil.copy(store, place)
    warm_up()
    begun = time.monotonic()
    assert ended(go_on(place, folder)) == 0, (place / "log").read_text()
    return left_in(place), time.monotonic() - begun


def left_in(place):
    """The weights and the metrics of the one run in a folder; one that was killed before it had its own is empty."""
    (last,) = place.glob("experiments/runs/*/*/last.pt")
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.pt", "last.pt", "run.json"]
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'cellseg-final'")
    runs = {each.info.run_id: each for each in client.search_runs([experiment.experiment_id])}
    run = runs.pop(last.parent.name)
    assert run.info.status == "FINISHED"
    assert not any(each.data.metrics for each in runs.values())
    (version,) = client.search_model_versions("name = 'cellseg'")
    assert version.run_id == run.info.run_id
    assert client.get_model_version_by_alias("cellseg", "best").version == version.version
    history = {
        name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
        if not name.startswith("system/") and "seconds" not in name
    }
    return {path.name: load(path) for path in last.parent.glob("*.pt")}, history


def assert_same(found, expected):
    (checkpoints, history), (others, other_history) = found, expected
    assert history == other_history
    for name, checkpoint in checkpoints.items():
        assert checkpoint.epoch == others[name].epoch
        assert checkpoint.metrics == others[name].metrics
        for key, tensor in checkpoint.model.items():
            assert torch.equal(tensor, others[name].model[key]), f"{name}: {key}"


def go_on(place, data, **fatal):
    """Begin the training, or resume it where it was begun."""
    begun = [path.parent.name for path in Path(place).glob("experiments/runs/*/*/run.json")]
    arguments = ["--resume", *begun] if begun else ["--data", data]
    return start(place, SCRIPT, *TRAINING, *arguments, log=place / "log", **fatal)


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(("fatal", "call"), PLACES if ALL else QUICK)
def test_a_training_that_is_killed_at_a_place_ends_the_same(folder, whole, place, fatal, call):
    assert ended(go_on(place, folder, fatal=fatal, call=call)) == -signal.SIGKILL, (place / "log").read_text()
    assert ended(go_on(place, folder)) == 0, (place / "log").read_text()
    assert_same(left_in(place), whole[0])


@pytest.mark.skipif(not ALL, reason="`make faults` kills at random moments too")
@pytest.mark.usefixtures("no_server")
def test_trainings_that_are_killed_again_and_again_end_the_same(folder, whole, store, tmp_path):
    moments = random.Random(0)
    kills = 0
    while kills < TIMES:
        place = Path(tempfile.mkdtemp(dir=tmp_path))
        shutil.copy(store, place)
        while (code := ended_or_killed(go_on(place, folder), moments.uniform(0.2, whole[1]))) == -signal.SIGKILL:
            kills += 1
        assert code == 0, (place / "log").read_text()
        assert_same(left_in(place), whole[0])
