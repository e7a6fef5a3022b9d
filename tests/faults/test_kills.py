"""A training that is killed, wherever that is, and resumed ends as the one that was never killed."""

import random
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from commands import ALL, ended, ended_or_killed
from trainings import assert_same, go_on, left_in

PLACES = [
    ("torch:save", 1),
    ("torch:save", 4),
    ("cellseg.train:predict", 2),
    ("cellseg.train:write_checkpoints", 2),
    ("mlflow:MlflowClient.log_batch", 1),
    ("mlflow:MlflowClient.log_batch", 3),
    ("mlflow:MlflowClient.log_artifact", 3),  # after the config's: the first epoch's curves
    ("mlflow:MlflowClient.set_terminated", 1),
    ("cellseg.tracking:register", 1),
    ("mlflow:MlflowClient.create_model_version", 1),
    ("mlflow:MlflowClient.set_registered_model_alias", 1),
    ("pathlib:Path.replace", 2),
]
QUICK = [PLACES[1], PLACES[2], PLACES[5]]
TIMES = 10
"""more kills, at moments drawn at random, of one training after the other, each resumed until it ends"""


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
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            process = go_on(place, folder)
            code = ended(process) if kills == TIMES else ended_or_killed(process, moments.uniform(0.2, whole[1]))
            kills += code == -signal.SIGKILL
        assert code == 0, (place / "log").read_text()
        assert_same(left_in(place), whole[0])
