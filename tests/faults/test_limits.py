"""A disk that is full, a folder that belongs to another, no memory: one line that says what to do, and nothing lost."""

import os
import re
import subprocess

import pytest
from commands import ALL, ended, start
from mishaps import FILLER, fill_disk, give_up_powers, take_memory
from trainings import SCRIPT, STUDY, TRAINING, assert_same, go_on, left_in

from cellseg.checkpoint import load, save
from cellseg.sample import write

pytestmark = pytest.mark.usefixtures("no_server")
FULL = [
    ("torch:save", 1, False),
    ("torch:save", 4, True),
    ("mlflow:MlflowClient.create_run", 1, False),
    ("mlflow:MlflowClient.log_batch", 4, True),  # the first sends parameters, two may send the steps of a slow epoch
    ("mlflow:MlflowClient.log_image", 1, True),
    ("mlflow:MlflowClient.log_artifact", 4, True),
    ("cellseg.tracking:register", 1, True),
]
"""where the disk is full all at once, and whether an epoch is kept by then; three epochs save six times at most"""


@pytest.fixture
def small_disk(place):
    """A store of runs on a disk of 200 MB."""
    kept = (place / "mlflow.db").read_bytes()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        (place / "mlflow.db").write_bytes(kept)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def told(log):
    """The one line in which a command told its error."""
    said = log.read_text()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.skipif(not ALL, reason="`make faults` fills disks")
@pytest.mark.parametrize(("fatal", "call", "trained"), FULL)
def test_a_training_whose_disk_is_full_says_so_and_ends_the_same_once_there_is_space(
    folder, whole, small_disk, tmp_path_factory, fatal, call, trained
):
    log = tmp_path_factory.mktemp("log") / "log"
    assert ended(go_on(small_disk, folder, log=log, fatal=fatal, call=call, fault=fill_disk)) == 2, log.read_text()
    assert "no space left on the disk; free some and give the same command again" in told(log)
    left = [load(last).epoch for last in small_disk.glob("experiments/runs/*/*/last.pt")]
    assert len(left) == int(trained)
    assert set(left) <= {1, 2, 3}
    (small_disk / FILLER).unlink()
    assert ended(go_on(small_disk, folder, log=log)) == 0, log.read_text()
    assert_same(left_in(small_disk), whole[0])


@pytest.fixture
def not_ours(tmp_path):
    """A folder that only another user may write to."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    yield folder
    folder.chmod(0o755)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """Data with a test image."""
    root = tmp_path_factory.mktemp("tested")
    write(root, train=1, test=1)
    return root


@pytest.fixture(scope="module")
def checkpoint(whole, tmp_path_factory):
    """A network."""
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save(whole[0][0]["best.pt"], path)
    return path


SEARCH = "search/optuna_study.py"
PLACES = {
    "sample": ("cellseg", "sample", "theirs/data"),
    "predict": ("cellseg", "predict", "{checkpoint}", "{folder}/train", "--out", "theirs/cells"),
    "train": (SCRIPT, *TRAINING, "--data", "{folder}", "--runs", "theirs/runs"),
    "submit": ("experiments/submit.py", "--data", "{tested}", "--checkpoint", "{checkpoint}", "--out", "theirs/a.zip"),
    "a study's storage": (SEARCH, *STUDY, "--data", "{folder}", "--storage", "sqlite:///theirs/optuna.db"),
    "a study's runs": (SEARCH, *STUDY, "--data", "{folder}", "--runs", "theirs/runs"),
    "a study's results": (SEARCH, *STUDY, "--data", "{folder}", "--results", "theirs/results"),
}
"""what is written where: a script and its arguments, {} around what a fixture makes"""
QUICK = ("sample", "train")


@pytest.mark.parametrize("what", PLACES if ALL else QUICK)
def test_a_folder_of_another_user_is_named_and_left_as_it_was(place, not_ours, what, request):
    command = [re.sub(r"{(\w+)}", lambda name: str(request.getfixturevalue(name[1])), each) for each in PLACES[what]]
    ran = start(place, *command, log=place / "log", before=give_up_powers)
    assert ended(ran) == 2, (place / "log").read_text()
    line = told(place / "log")
    assert "theirs" in line
    assert "permission denied" in line.lower()
    assert list(not_ours.iterdir()) == []


@pytest.mark.skipif(not ALL, reason="`make faults` takes memory away")
@pytest.mark.parametrize(("fatal", "call"), [("cellseg.train:train_epoch", 2), ("cellseg.train:write_checkpoints", 2)])
def test_a_training_without_memory_says_what_to_lower_and_goes_on_from_its_last_epoch(
    folder, whole, place, fatal, call
):
    assert ended(go_on(place, folder, fatal=fatal, call=call, fault=take_memory)) == 2, (place / "log").read_text()
    assert "out of memory; a training takes less with a smaller --train.batch" in told(place / "log")
    (last,) = place.glob("experiments/runs/*/*/last.pt")
    assert load(last).epoch == 1
    assert ended(go_on(place, folder)) == 0, (place / "log").read_text()
    assert_same(left_in(place), whole[0])
