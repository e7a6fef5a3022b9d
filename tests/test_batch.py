"""Many images into a folder, and on where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg import formats
from cellseg.batch import JOURNAL, Journal, jobs_of, predict_files
from cellseg.cells import cells_of
from cellseg.codes import encode

SETTINGS = {"checkpoint": "d1", "formats": ("labels",)}


class OneCell:
    """A model that finds one cell in each image, and remembers their names."""

    color = "rgb"

    def __init__(self):
        self.asked = []

    def cells(self, image, mpp, name, tell):
        self.asked.append(Path(name).name)
        tell(0.5)
        size = image.shape[:2]
        (code,) = encode([np.ones((3, 4), bool)], np.array([[1, 2]]), size)
        return cells_of([{"category_id": 2, "score": 0.9, "segmentation": code}], size, ("a", "b"), mpp)


@pytest.fixture
def images(tmp_path):
    """A folder of two images and one in a subfolder."""
    folder = tmp_path / "images"
    for name in ("a.tif", "b.tif", "inner/a.tif"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.full((20, 30, 3), 200, np.uint8), photometric="rgb")
    (folder / "notes.txt").write_text("no image")
    return folder


def predicted(paths, out, settings=SETTINGS, stop_after=None):
    """The model's images, those that failed, and what was told."""
    model, failures, told = OneCell(), [], []

    def tell(done):
        told.append(done)
        if stop_after is not None and done >= stop_after:
            raise KeyboardInterrupt

    predict_files(
        model,
        jobs_of(paths, out),
        Journal(out, settings),
        ["labels"],
        tell=tell,
        failed=lambda job, error: failures.append((job.name, str(error))),
    )
    return model.asked, failures, told


def test_names_follow_the_folders_and_ids_count_from_1(images, tmp_path):
    jobs = jobs_of([images], tmp_path / "out")
    assert [(job.name, job.number) for job in jobs] == [("a", 1), ("b", 2), ("inner/a", 3)]
    asked, failures, told = predicted([images], tmp_path / "out")
    assert (asked, failures) == (["a.tif", "b.tif", "a.tif"], [])
    assert told == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert tifffile.imread(tmp_path / "out/inner/a.labels.tif").sum() == 12


def test_the_output_is_not_searched_for_images(images):
    predicted([images], images / "out")
    assert [job.name for job in jobs_of([images], images / "out")] == ["a", "b", "inner/a"]


def test_two_images_of_one_name_are_refused(images, tmp_path):
    with pytest.raises(ValueError, match=r"inner/a\.tif: its predictions would be named as those of .*images/a\.tif"):
        jobs_of([images / "a.tif", images / "inner/a.tif"], tmp_path)
    assert len(jobs_of([images / "a.tif", images / "a.tif"], tmp_path)) == 1


def test_a_missing_path_and_a_folder_without_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: no such file or folder"):
        jobs_of([tmp_path / "nothing"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: expected images"):
        jobs_of([tmp_path / "empty"], tmp_path / "out")


def test_what_was_interrupted_goes_on_with_the_image_that_was_not_finished(images, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predicted([images], out, stop_after=1.5)
    assert not (out / "b.labels.tif").exists()
    assert predicted([images], out)[0] == ["b.tif", "a.tif"]
    assert predicted([images], out)[0] == []


def test_what_a_killed_call_left_is_swept_away_in_subfolders_too(images, tmp_path):
    out = tmp_path / "out"
    (out / "inner").mkdir(parents=True)
    left = [out / ".predictions.jsonl.1.partial", out / ".a.labels.tif.1.partial", out / "inner/.a.csv.csv.1.partial"]
    for path in left:
        path.write_text("half a file")
    predicted([images], out)
    assert not any(path.exists() for path in left)


def test_a_changed_image_and_a_lost_file_are_predicted_anew(images, tmp_path):
    out = tmp_path / "out"
    predicted([images], out)
    tifffile.imwrite(images / "b.tif", np.full((21, 30, 3), 200, np.uint8), photometric="rgb")
    (out / "a.labels.tif").unlink()
    assert predicted([images], out)[0] == ["a.tif", "b.tif"]
    assert predicted([images], out)[0] == []


def test_a_bad_image_is_named_and_the_others_follow(images, tmp_path):
    (images / "b.tif").write_text("hello")
    asked, failures, told = predicted([images], tmp_path / "out")
    assert asked == ["a.tif", "a.tif"]
    ((name, reason),) = failures
    assert name == "b"
    assert "b.tif: expected a tif, png or jpg" in reason
    assert told[-1] == 3
    assert predicted([images], tmp_path / "out")[0] == []  # it is tried again, and fails again


def test_other_settings_are_refused_with_what_is_other(images, tmp_path):
    predicted([images], tmp_path / "out")
    with pytest.raises(ValueError, match="holds predictions with checkpoint d1, this call has d2"):
        predicted([images], tmp_path / "out", {**SETTINGS, "checkpoint": "d2"})


def test_a_line_that_was_cut_off_is_forgotten(images, tmp_path):
    out = tmp_path / "out"
    predicted([images], out)
    text = (out / JOURNAL).read_text()
    (out / JOURNAL).write_text(text[:-10])
    assert predicted([images], out)[0] == ["a.tif"]
    assert (out / JOURNAL).read_text() == text


def test_a_journal_of_another_kind_is_named(images, tmp_path):
    predicted([images], tmp_path / "out")
    path = tmp_path / "out" / JOURNAL
    path.write_text("x\n" + path.read_text())
    with pytest.raises(ValueError, match=r"predictions\.jsonl: line 1: expected JSON, found x"):
        Journal(tmp_path / "out", SETTINGS)


def test_counts_are_of_all_finished_images(images, tmp_path):
    out = tmp_path / "out"
    predicted([images / "a.tif"], out)
    predicted([images], out)
    assert Journal(out, SETTINGS).counts(jobs_of([images], out)) == {"a": 0, "b": 3}
    assert json.loads((out / JOURNAL).read_text().splitlines()[0]) == {"checkpoint": "d1", "formats": ["labels"]}


def test_a_full_disk_ends_the_batch(images, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "write", full)
    with pytest.raises(OSError, match="No space left"):
        predicted([images], tmp_path / "out")
