import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile
from test_dataset import coco_folder, scene, two_images

from cellseg import dataset
from cellseg.config import DatasetConfig
from cellseg.dataset import open_dataset
from cellseg.fingerprint import fingerprint
from cellseg.survey import survey


def seen_at(root):
    return survey(root, DatasetConfig())


def to_predict(root, **images):
    """The test images of a folder, with their list."""
    (root / "test_release").mkdir()
    entries = []
    for number, (name, image) in enumerate(images.items(), start=1):
        tifffile.imwrite(root / "test_release" / f"{name}.tif", image, photometric="rgb")
        height, width = image.shape[:2]
        entries.append({"file_name": f"{name}.tif", "id": number, "height": height, "width": width})
    (root / "test_image_name_to_ids.json").write_text(json.dumps(entries))


def test_the_fingerprint_is_that_of_the_data_set(folder, data):
    seen, expected = seen_at(folder), fingerprint(data, range(len(data)))
    assert (seen.data.digest, seen.data.records) == (data.digest, data.records)
    assert (seen.found.names, seen.found.sizes_hw) == (expected.names, expected.sizes_hw)
    for field in ("boxes", "labels", "areas"):
        pairs = zip(getattr(seen.found, field), getattr(expected, field), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)
    assert np.array_equal(seen.annotated, data.cell_counts)
    assert (seen.broken, seen.tests) == ((), None)


def test_each_image_is_read_once_and_none_is_kept(tmp_path, monkeypatch):
    two_images(tmp_path)
    read = []
    reader = dataset.read_image
    monkeypatch.setattr(
        dataset, "read_image", lambda path, *order: read.append(path.parent.name) or reader(path, *order)
    )
    seen = seen_at(tmp_path)
    assert read == ["a", "b"]
    assert seen.data.kept == {}
    assert seen.data.image(0).shape == (20, 30, 3)


def test_pixels_have_one_digest_whatever_name_and_format_their_file_has(tmp_path):
    first, second = two_images(tmp_path)
    to_predict(tmp_path, x=first, y=second)
    assert cv2.imwrite(str(tmp_path / "y.png"), second[:, :, ::-1])
    shutil.move(tmp_path / "y.png", tmp_path / "test_release" / "y.tif")
    seen = seen_at(tmp_path)
    assert seen.tests is not None
    assert [image.name for image in seen.tests] == ["x.tif", "y.tif"]
    assert [image.digest for image in seen.pixels] == [image.digest for image in seen.tests]
    assert len({image.digest for image in seen.pixels}) == 2


def test_an_image_turned_or_of_one_other_pixel_has_another_digest(tmp_path):
    first, _ = two_images(tmp_path)
    changed = first.copy()
    changed[0, 0, 0] ^= 1
    to_predict(tmp_path, changed=changed, turned=np.ascontiguousarray(first.reshape(30, 20, 3)))
    seen = seen_at(tmp_path)
    assert len({image.digest for image in (*seen.pixels, *(seen.tests or ()))}) == 4


def test_an_image_of_one_colour_is_blank(tmp_path):
    two_images(tmp_path)  # the second has no cell: it is pink all over
    assert [image.blank for image in seen_at(tmp_path).pixels] == [False, True]


def test_cells_that_a_smaller_one_hides_are_counted_and_crowds_are_not(tmp_path):
    coco_folder(tmp_path / "set")  # of the second class, a cell within another; of the first, a crowd
    (cells,) = seen_at(tmp_path / "set").cells
    assert (cells.annotated.tolist(), cells.hidden, cells.shared) == ([0, 2], 1, 0)


def test_a_cell_without_a_pixel_of_its_own_is_annotated_still(tmp_path):
    path = coco_folder(tmp_path / "set")
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = content["annotations"][1]["segmentation"]
    path.write_text(json.dumps(content))
    seen = seen_at(path)
    assert seen.annotated.tolist() == [[0, 2]]
    assert seen.data.cell_counts.tolist() == [[0, 1]]


def test_cells_of_two_classes_that_share_a_pixel_are_both_counted(tmp_path):
    scene(tmp_path / "train" / "a", {1: {1: (2, 2, 4, 4), 2: (12, 12, 4, 4)}, 2: {3: (5, 5, 4, 4), 4: (2, 20, 3, 3)}})
    (cells,) = seen_at(tmp_path).cells
    assert (cells.shared, cells.hidden) == (2, 0)


def test_broken_files_are_named_with_the_reason_and_the_rest_is_seen(tmp_path):
    for name in "abcdef":
        scene(tmp_path / "train" / name, {1: {1: (2, 3, 4, 5)}, 2: {2: (10, 10, 3, 3)}})
    train = tmp_path / "train"
    (train / "a" / "image.tif").write_bytes(b"")
    (train / "a" / "class2.tif").write_bytes(b"hello")  # beside a broken file
    (train / "b" / "image.tif").unlink()
    tifffile.imwrite(train / "c" / "class1.tif", np.full((20, 30), 0.5), metadata=None)
    tifffile.imwrite(train / "d" / "class2.tif", np.zeros((9, 9)), metadata=None)
    (train / "e" / "notes.txt").touch()
    seen = seen_at(tmp_path)
    assert [record.name for record in seen.data.records] == ["f"]
    expected = [
        ("a/class2.tif", "not a TIFF file"),
        ("a/image.tif", "an empty file"),
        ("b/image.tif", "no such file"),
        ("c/class1.tif", "0.5 at row 0"),
        ("d/class2.tif", r"shape (9, 9)"),
        ("e/notes.txt", "expected image.tif and class<number>.tif alone"),
    ]
    for message, (name, reason) in zip(seen.broken, expected, strict=True):
        assert message.startswith(f"{train / name}: ")
        assert reason in message
        assert "\n" not in message


def test_what_is_read_has_the_digest_of_a_folder_that_holds_nothing_else(tmp_path):
    two_images(tmp_path)
    alone = open_dataset(tmp_path, DatasetConfig()).digest
    scene(tmp_path / "train" / "c", {})
    (tmp_path / "train" / "c" / "image.tif").write_bytes(b"II*\0")
    seen = seen_at(tmp_path)
    assert len(seen.broken) == 1
    assert seen.data.digest == alone


def test_broken_test_images_are_named_and_the_others_seen(tmp_path):
    first, second = two_images(tmp_path)
    to_predict(tmp_path, x=first, y=second, z=first)
    (tmp_path / "test_release" / "x.tif").write_bytes(b"")
    (tmp_path / "test_release" / "z.tif").unlink()
    (tmp_path / "test_release" / "w.tif").touch()
    seen = seen_at(tmp_path)
    assert seen.tests is not None
    assert [image.name for image in seen.tests] == ["y.tif"]
    empty, missing, unlisted = seen.broken
    assert "found also w.tif" in unlisted
    assert "x.tif" in empty
    assert "z.tif: no such file" in missing


def test_test_images_without_a_list_are_an_error_and_a_list_without_images_is_none(tmp_path):
    first, _ = two_images(tmp_path)
    to_predict(tmp_path, x=first)
    (tmp_path / "test_image_name_to_ids.json").rename(tmp_path / "list.json")
    (message,) = seen_at(tmp_path).broken
    assert "test_image_name_to_ids.json: no such file or folder" in message
    (tmp_path / "list.json").rename(tmp_path / "test_image_name_to_ids.json")
    shutil.rmtree(tmp_path / "test_release")
    assert (seen_at(tmp_path).broken, seen_at(tmp_path).tests) == ((), None)


def test_of_a_coco_file_what_cannot_be_read_is_left_out(tmp_path):
    path = coco_folder(tmp_path / "set")
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[1, 2, 3]]
    content["images"].append({"id": 3, "file_name": "gone.tif", "height": 5, "width": 5})
    path.write_text(json.dumps(content))
    seen = seen_at(tmp_path / "set")
    assert [record.name for record in seen.data.records] == ["a.tif"]
    assert seen.annotated.tolist() == [[0, 1]]
    annotation, image = seen.broken
    assert annotation.startswith(f"{path}: annotation 0: expected polygons of 6 or more numbers")
    assert image.startswith(f"{path}: image 3: no file")


def test_without_an_image_that_can_be_read_all_reasons_are_given(tmp_path):
    for name in "ab":
        scene(tmp_path / "train" / name, {})
        (tmp_path / "train" / name / "image.tif").write_bytes(b"")
    with pytest.raises(ValueError, match="expected an image that can be read, found none") as caught:
        seen_at(tmp_path)
    assert str(caught.value).count("found an empty file") == 2
