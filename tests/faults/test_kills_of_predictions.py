"""Predictions and submissions that are killed, wherever that is, and called again end as those never killed."""

import random
import shutil
import signal
import time

import pytest
import tifffile
from commands import ALL, ended, ended_or_killed, start, warm_up
from made_cells import noise
from untrained import save_untrained

from cellseg.json_files import write_json

NAMES = ("a", "b", "sub/c", "sub/d")
FORMATS = ("labels", "coco", "geojson", "rois", "csv", "overlay")
PLACES_OF_A_BATCH = [
    ("pathlib:Path.replace", 1),  # the journal is begun
    ("pathlib:Path.replace", 14),  # in sub/, for which its first file is ready
    ("cellseg.predictor:Model.cells", 2),
    ("tifffile:imwrite", 1),
    ("zipfile:ZipFile.writestr", 8),
    ("zipfile:ZipFile.close", 3),
    ("csv:writer", 4),
    ("cellseg.batch:Journal.add", 3),
    ("os:fsync", 3),
]
PLACES_OF_A_SUBMISSION = [
    ("cellseg.predict:predict", 1),
    ("cellseg.export:lint", 1),
    ("zipfile:ZipFile.writestr", 1),
    ("zipfile:ZipFile.close", 1),
    ("pathlib:Path.replace", 1),
]
QUICK = [PLACES_OF_A_BATCH[1]]
TIMES = 10
"""more kills, at moments drawn at random, of one batch after the other, each called again until it ends"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, run_config):
    """A folder with an untrained network, which finds cells in noise, images of it, and the same as a test set."""
    folder = tmp_path_factory.mktemp("predictions")
    save_untrained(folder / "best.pt", run_config)
    (folder / "images/sub").mkdir(parents=True)
    (folder / "data/test_release").mkdir(parents=True)
    ids = []
    for number, name in enumerate(NAMES, start=1):
        path = folder / f"images/{name}.tif"
        tifffile.imwrite(path, noise((90, 100), seed=number), photometric="rgb")
        shutil.copy(path, folder / "data/test_release")
        ids.append({"file_name": path.name, "id": number, "height": 90, "width": 100})
    write_json(ids, folder / "data/test_image_name_to_ids.json")
    return folder


def predict(place, out, **fatal):
    """The command that predicts the images."""
    arguments = ("predict", "best.pt", "images", "--out", out, "--device", "cpu", "--formats", *FORMATS)
    return start(place, "cellseg", *arguments, log=place / "log", **fatal)


def submit(place, out, **fatal):
    """The command that writes the submission."""
    arguments = ("--checkpoint", "best.pt", "--device", "cpu", "--out", out / "submission.zip")
    return start(place, "experiments/submit.py", *arguments, log=place / "log", **fatal)


def left_in(out):
    """The bytes of each file in a folder, hidden ones too."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """What a batch that was never killed leaves, and the seconds that it took."""
    out = tmp_path_factory.mktemp("whole")
    warm_up()
    begun = time.monotonic()
    assert ended(predict(place, out)) == 0, (place / "log").read_text()
    left = left_in(out)
    assert len(left) == len(NAMES) * len(FORMATS) + 2  # predictions.jsonl and its lock
    return left, time.monotonic() - begun


@pytest.fixture(scope="module")
def submission(place, tmp_path_factory):
    """What a submission that was never killed leaves."""
    out = tmp_path_factory.mktemp("submission")
    assert ended(submit(place, out)) == 0, (place / "log").read_text()
    assert list(left_in(out)) == ["submission.zip"]
    return left_in(out)


@pytest.mark.parametrize(("fatal", "call"), PLACES_OF_A_BATCH if ALL else QUICK)
def test_a_batch_that_is_killed_and_called_again_leaves_the_same_files(place, whole, tmp_path, fatal, call):
    assert ended(predict(place, tmp_path, fatal=fatal, call=call)) == -signal.SIGKILL, (place / "log").read_text()
    assert left_in(tmp_path) != whole[0]
    assert ended(predict(place, tmp_path)) == 0, (place / "log").read_text()
    assert left_in(tmp_path) == whole[0]


@pytest.mark.skipif(not ALL, reason="`make faults` kills at random moments too")
def test_batches_that_are_killed_again_and_again_leave_the_same_files(place, whole, tmp_path):
    moments = random.Random(0)
    kills = batches = 0
    while kills < TIMES:
        batches += 1
        out = tmp_path / str(batches)
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            process = predict(place, out)
            code = ended(process) if kills == TIMES else ended_or_killed(process, moments.uniform(0.2, whole[1]))
            kills += code == -signal.SIGKILL
        assert code == 0, (place / "log").read_text()
        assert left_in(out) == whole[0]


@pytest.mark.skipif(not ALL, reason="`make faults` kills submissions too")
@pytest.mark.parametrize(("fatal", "call"), PLACES_OF_A_SUBMISSION)
def test_a_submission_that_is_killed_and_called_again_has_the_same_bytes(place, submission, tmp_path, fatal, call):
    assert ended(submit(place, tmp_path, fatal=fatal, call=call)) == -signal.SIGKILL, (place / "log").read_text()
    assert "submission.zip" not in left_in(tmp_path)
    assert ended(submit(place, tmp_path)) == 0, (place / "log").read_text()
    assert left_in(tmp_path) == submission
