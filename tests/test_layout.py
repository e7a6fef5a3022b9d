import json

import numpy as np
import pytest
import tifffile

from cellseg import layout

SIZE = (6, 9)


def image(path, size_hw=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros((*size_hw, 3), np.uint8), photometric="rgb")
    return path


def training_folder(root, name, *labels):
    image(root / "train" / name / "image.tif")
    for label in labels:
        (root / "train" / name / f"class{label}.tif").touch()
    return root / "train" / name


def listed(root, *entries):
    """Two listed test images, or the entries given."""
    for name in ("b.tif", "a.tif"):
        image(root / "test_release" / name)
    usual = [
        {"file_name": "b.tif", "id": 2, "height": 6, "width": 9},
        {"file_name": "a.tif", "id": 1, "height": 6, "width": 9},
    ]
    (root / layout.TEST_LIST).write_text(json.dumps(list(entries) or usual))


def test_training_images_come_by_name_with_ids_from_one_and_their_class_files(tmp_path):
    training_folder(tmp_path, "zebra", 2)
    training_folder(tmp_path, "ape", 4, 1)
    training_folder(tmp_path, "empty")
    found = layout.training_images(tmp_path, 4)
    assert [(record.name, record.image_id, record.size_hw) for record, _ in found] == [
        ("ape", 1, SIZE),
        ("empty", 2, SIZE),
        ("zebra", 3, SIZE),
    ]
    assert [list(annotation.paths) for _, annotation in found] == [[1, 4], [], [2]]
    assert [record.source for record, _ in found] == ["", "", ""]


def test_the_source_is_that_of_the_manifest_up_to_the_last_slash(tmp_path):
    for name in ("a", "b", "c"):
        training_folder(tmp_path, name)
    (tmp_path / "manifest.csv").write_text("id,split,source\na,train,set/slide_1/0_0\nb,train,slide_2\nc,test,set/x\n")
    assert [record.source for record, _ in layout.training_images(tmp_path, 4)] == ["set/slide_1", "slide_2", ""]
    (tmp_path / "manifest.csv").write_text("name,from\na,b\n")
    with pytest.raises(ValueError, match=r"manifest\.csv: expected columns id and source, found name, from"):
        layout.training_images(tmp_path, 4)


def test_hidden_files_and_litter_are_passed_over(tmp_path):
    folder = training_folder(tmp_path, "a", 1)
    for path in (folder / ".DS_Store", folder / "Thumbs.db", tmp_path / "train" / ".DS_Store"):
        path.touch()
    assert len(layout.training_images(tmp_path, 4)) == 1


@pytest.mark.parametrize(
    ("stray", "message"),
    [
        ("a/class5.tif", r"class5\.tif: expected classes 1 to 4, found 5"),
        ("a/class0.tif", r"class0\.tif: expected image\.tif and class<number>\.tif alone"),
        ("a/class1.tiff", r"class1\.tiff: expected image\.tif"),
        ("a/notes.txt", r"notes\.txt: expected image\.tif"),
        ("notes.txt", r"notes\.txt: expected only folders"),
    ],
)
def test_a_file_without_a_place_is_named(tmp_path, stray, message):
    training_folder(tmp_path, "a")
    (tmp_path / "train" / stray).touch()
    with pytest.raises(ValueError, match=message):
        layout.training_images(tmp_path, 4)


def test_a_missing_image_and_an_empty_train_folder_are_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="train: expected a folder an image, found none"):
        layout.training_images(tmp_path, 4)
    (tmp_path / "train" / "a").mkdir()
    with pytest.raises(FileNotFoundError, match=r"a.image\.tif: no such file"):
        layout.training_images(tmp_path, 4)


def test_test_images_come_in_order_of_id(tmp_path):
    listed(tmp_path)
    found = layout.test_images(tmp_path)
    assert [(each.image_id, each.file_name, each.size_hw) for each in found] == [(1, "a.tif", SIZE), (2, "b.tif", SIZE)]
    assert found[0].path == tmp_path / "test_release" / "a.tif"


A = {"file_name": "a.tif", "id": 1, "height": 6, "width": 9}
B = {**A, "file_name": "b.tif", "id": 2}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([A], r"test_release: expected the files of .*found also b\.tif"),
        ([A, {**B, "id": 1}], "id 1 is given 2 times; expected once"),
        ([A, A], "given 2 times; expected once"),
        ([A, {**B, "width": 6}], r"b\.tif: expected height 6 and width 6 as listed, found 6 and 9"),
        ([A, {**B, "id": "2"}], "image 1: id '2' is not an integer"),
        ([A, {**B, "height": True}], "image 1: height True is not an integer from 1 on"),
        ([A, {"file_name": "b.tif"}], "image 1: expected a dict with file_name, id, height, width"),
        ([A, "b.tif"], "image 1: expected a dict with file_name, id, height, width"),
        ([A, {**B, "file_name": "../b.tif"}], r"image 1: expected a file name without folders, got '\.\./b\.tif'"),
        ([A, {**B, "file_name": "x\\b.tif"}], "expected a file name without folders"),
        ([A, {**B, "file_name": ".."}], "expected a file name without folders"),
    ],
)
def test_a_list_that_does_not_fit_its_files_is_refused(tmp_path, entries, message):
    listed(tmp_path, *entries)
    with pytest.raises(ValueError, match=message):
        layout.test_images(tmp_path)


def test_a_listed_file_that_is_missing_is_named(tmp_path):
    listed(tmp_path, A, B, {**A, "file_name": "c.tif", "id": 3})
    with pytest.raises(FileNotFoundError, match=r"c\.tif: no such file"):
        layout.test_images(tmp_path)


@pytest.mark.parametrize(("text", "found"), [("{", "expected JSON"), ('{"a": 1}', "expected a list of images")])
def test_what_is_no_list_is_refused(tmp_path, text, found):
    listed(tmp_path)
    (tmp_path / layout.TEST_LIST).write_text(text)
    with pytest.raises(ValueError, match=found):
        layout.test_images(tmp_path)


def test_without_list_or_folder_there_are_no_test_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=layout.TEST_LIST):
        layout.test_images(tmp_path)
    (tmp_path / layout.TEST_LIST).write_text("[]")
    with pytest.raises(FileNotFoundError, match="test_release: no such file"):
        layout.test_images(tmp_path)
