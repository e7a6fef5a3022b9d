import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg import dataset
from cellseg.codes import decode
from cellseg.config import DatasetConfig
from cellseg.dataset import open_dataset
from cellseg.label_maps import codes_of

SHARED = Path(__file__).parents[2] / "shared" / "data"
PURPLE, PINK = (110, 60, 170), (235, 200, 225)


def scene(folder, cells, order="rgb", size_hw=(20, 30)):
    """A training folder: purple cells {class: {id: (y, x, height, width)}} on pink."""
    image = np.full((*size_hw, 3), PINK, np.uint8)
    folder.mkdir(parents=True)
    for label, boxes in cells.items():
        plane = np.zeros(size_hw)
        for number, (y, x, height, width) in boxes.items():
            plane[y : y + height, x : x + width] = number
        image[plane > 0] = PURPLE
        tifffile.imwrite(folder / f"class{label}.tif", plane, metadata=None)
    stored = image if order == "rgb" else image[:, :, ::-1]
    tifffile.imwrite(folder / "image.tif", stored, photometric="rgb")
    return image


def two_images(root, order="rgb"):
    first = scene(root / "train" / "a", {1: {1: (2, 3, 4, 5), 2: (2, 8, 4, 5)}, 3: {300: (10, 10, 1, 1)}}, order)
    second = scene(root / "train" / "b", {}, order, (7, 9))
    return first, second


def coco_folder(root):
    """One image of 20 x 30, id 9: a large cell, a small one within it, both of class 1, and a crowd."""
    root.mkdir()
    tifffile.imwrite(root / "a.tif", np.full((20, 30, 3), 200, np.uint8), photometric="rgb")
    square = [2, 2, 12, 2, 12, 12, 2, 12]
    inner = [4, 4, 6, 4, 6, 6, 4, 6]
    entries = [
        {"id": 0, "image_id": 9, "category_id": 4, "segmentation": [inner]},
        {"id": 1, "image_id": 9, "category_id": 4, "segmentation": [square]},
        {"id": 2, "image_id": 9, "category_id": 2, "segmentation": [square], "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 9, "file_name": "a.tif", "height": 20, "width": 30}],
        "categories": [{"id": 2, "name": "stroma"}, {"id": 4, "name": "tumour"}],
        "annotations": entries,
    }
    path = root / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def test_a_folder_becomes_images_and_label_maps(tmp_path):
    first, second = two_images(tmp_path)
    data = open_dataset(tmp_path, DatasetConfig())
    assert (len(data), data.num_cell_classes, data.class_names) == (2, 4, ("class1", "class2", "class3", "class4"))
    assert [(record.name, record.image_id, record.size_hw) for record in data.records] == [
        ("a", 1, (20, 30)),
        ("b", 2, (7, 9)),
    ]
    assert np.array_equal(data.image(0), first)
    assert np.array_equal(data.image(1), second)
    label_maps = data.label_maps(0)
    assert (label_maps.shape, label_maps.dtype) == ((4, 20, 30), np.int32)
    assert label_maps[0, 2, 7:9].tolist() == [1, 2]  # cells that touch stay two
    assert label_maps[2, 10, 10] == 300
    assert data.label_maps(1).shape == (4, 7, 9)
    assert data.cell_counts.tolist() == [[2, 0, 1, 0], [0, 0, 0, 0]]
    assert data.overlaps == 0


def test_what_was_returned_may_be_written_to(tmp_path):
    two_images(tmp_path)
    data = open_dataset(tmp_path, DatasetConfig())
    image, label_maps = data.image(0), data.label_maps(0)
    image[:], label_maps[:] = 0, 0
    assert data.image(0).any()
    assert data.label_maps(0).any()


def test_beyond_its_memory_a_data_set_reads_its_files_again(tmp_path, monkeypatch):
    two_images(tmp_path, "bgr")
    kept = open_dataset(tmp_path, DatasetConfig(color="gray"))
    monkeypatch.setattr(dataset, "MEMORY", 0)
    read = open_dataset(tmp_path, DatasetConfig(color="gray"))
    assert (len(kept.kept), len(read.kept)) == (2, 0)
    for index in range(2):
        assert np.array_equal(read.image(index), kept.image(index))
        assert np.array_equal(read.label_maps(index), kept.label_maps(index))
        window = slice(2, 6), slice(3, 8)
        for part in (read.part(index, *window), kept.part(index, *window)):
            assert np.array_equal(part[0], kept.image(index)[window])
            assert np.array_equal(part[1], kept.label_maps(index)[:, 2:6, 3:8])
            part[0][:], part[1][:] = 0, 7  # a copy: what is kept stays as it is
    assert read.truth() == kept.truth()
    assert read.digest == kept.digest


def test_swapped_files_are_recognised_and_turned_back(tmp_path):
    first, _ = two_images(tmp_path, "bgr")
    data = open_dataset(tmp_path, DatasetConfig())
    assert data.channel_order == "bgr"
    assert data.channel_order_reason.startswith("bgr: nuclei stand out more in the third channel")
    assert np.array_equal(data.image(0), first)


def test_a_given_order_is_obeyed(tmp_path):
    first, _ = two_images(tmp_path)
    data = open_dataset(tmp_path, DatasetConfig(channel_order="bgr"))
    assert (data.channel_order, data.channel_order_reason) == ("bgr", "bgr: set by the configuration")
    assert np.array_equal(data.image(0), first[:, :, ::-1])


def test_gray_images_have_three_equal_channels(tmp_path):
    two_images(tmp_path)
    image = open_dataset(tmp_path, DatasetConfig(color="gray")).image(0)
    assert image.shape == (20, 30, 3)
    assert (image == image[:, :, :1]).all()
    assert image[3, 4, 0] == round(0.299 * 110 + 0.587 * 60 + 0.114 * 170)


def test_the_truth_holds_the_cells_and_counts_from_one(tmp_path):
    two_images(tmp_path)
    truth = open_dataset(tmp_path, DatasetConfig()).truth()
    assert truth["images"] == [
        {"id": 1, "file_name": "train/a/image.tif", "height": 20, "width": 30},
        {"id": 2, "file_name": "train/b/image.tif", "height": 7, "width": 9},
    ]
    assert truth["categories"] == [{"id": k, "name": f"class{k}"} for k in (1, 2, 3, 4)]
    assert [each["id"] for each in truth["annotations"]] == [1, 2, 3]
    first = truth["annotations"][0]
    assert (first["bbox"], first["area"], first["iscrowd"]) == ([3, 2, 5, 4], 20, 0)
    assert (first["image_id"], first["category_id"]) == (1, 1)
    assert decode(first["segmentation"])[2:6, 3:8].all()
    assert truth["annotations"][2]["bbox"] == [10, 10, 1, 1]


def test_the_truth_of_some_images_is_theirs_alone(tmp_path):
    two_images(tmp_path)
    data = open_dataset(tmp_path, DatasetConfig())
    assert [image["id"] for image in data.truth([1])["images"]] == [2]
    assert data.truth([1])["annotations"] == []
    assert data.truth([])["images"] == []


def test_the_digest_follows_names_and_bytes_and_not_the_place(tmp_path):
    two_images(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    digest = open_dataset(tmp_path / "here", DatasetConfig()).digest
    assert len(digest) == 16
    assert open_dataset(tmp_path / "there", DatasetConfig()).digest == digest
    (tmp_path / "there" / "train" / "a").rename(tmp_path / "there" / "train" / "c")
    renamed = open_dataset(tmp_path / "there", DatasetConfig()).digest
    (tmp_path / "here" / "train" / "a" / "class3.tif").unlink()
    fewer = open_dataset(tmp_path / "here", DatasetConfig()).digest
    assert len({digest, renamed, fewer}) == 3


def test_named_classes_keep_digest_and_cells_and_are_in_the_truth(tmp_path):
    two_images(tmp_path)
    plain = open_dataset(tmp_path, DatasetConfig())
    named = open_dataset(tmp_path, DatasetConfig(class_names=("round", "flat", "long")), num_cell_classes=4)
    assert named.class_names == ("round", "flat", "long")
    assert [each["name"] for each in named.truth()["categories"]] == ["round", "flat", "long"]
    assert named.digest == plain.digest
    assert named.cell_counts.tolist() == [[2, 0, 1], [0, 0, 0]]
    assert named.truth()["annotations"] == plain.truth()["annotations"]


def test_too_few_names_for_the_class_files_are_refused(tmp_path):
    two_images(tmp_path)
    with pytest.raises(ValueError, match=r"class3\.tif: expected classes 1 to 2, found 3; .* name all with --classes"):
        open_dataset(tmp_path, DatasetConfig(class_names=("round", "flat")))


def test_the_classes_of_a_coco_file_are_renamed_in_order_and_all_of_them(tmp_path):
    path = coco_folder(tmp_path / "set")
    data = open_dataset(path, DatasetConfig(class_names=("a", "b")))
    assert data.class_names == ("a", "b")
    assert data.cell_counts.tolist() == [[0, 2]]
    message = r"expected a name for each of its 2 classes \(stroma, tumour\), got 1 \(a\); name as many with --classes"
    with pytest.raises(ValueError, match=message):
        open_dataset(path, DatasetConfig(class_names=("a",)))


def rescaled(root, mpp, name):
    """The image of a training folder, with a scale in its tags."""
    path = root / "train" / name / "image.tif"
    tifffile.imwrite(
        path, tifffile.imread(path), photometric="rgb", resolution=(1 / mpp, 1 / mpp), resolutionunit="MICROMETER"
    )


def test_the_scale_is_that_of_the_files_where_they_agree_or_the_config_s(tmp_path):
    two_images(tmp_path)
    assert open_dataset(tmp_path, DatasetConfig()).mpp is None
    rescaled(tmp_path, 0.25, "a")
    assert open_dataset(tmp_path, DatasetConfig()).mpp == 0.25
    rescaled(tmp_path, 0.5, "b")
    mixed = open_dataset(tmp_path, DatasetConfig())
    assert (mixed.mpp, mixed.scale.doubtful) == (None, True)
    given = open_dataset(tmp_path, DatasetConfig(mpp=0.3))
    assert (given.mpp, given.scale.reason) == (0.3, "0.3 µm a pixel by the configuration")
    assert np.array_equal(given.image(0), mixed.image(0))


@pytest.mark.parametrize("give_the_file", [True, False])
def test_a_coco_file_and_its_folder_are_the_same_data_set(tmp_path, give_the_file):
    path = coco_folder(tmp_path / "set")
    data = open_dataset(path if give_the_file else path.parent, DatasetConfig(), num_cell_classes=9)
    assert (data.root, data.class_names) == (tmp_path / "set", ("stroma", "tumour"))
    assert (data.records[0].name, data.records[0].image_id) == ("a.tif", 9)
    tumour = data.label_maps(0)[1]
    assert sorted(np.unique(tumour, return_counts=True)[1].tolist()) == [4, 96, 500]
    assert data.cell_counts.tolist() == [[0, 2]]
    assert data.overlaps == 1


def test_the_truth_of_a_coco_file_keeps_overlaps_and_crowds(tmp_path):
    truth = open_dataset(coco_folder(tmp_path / "set"), DatasetConfig()).truth()
    cells = [(each["id"], each["area"], each["category_id"], each["iscrowd"]) for each in truth["annotations"]]
    assert cells == [(1, 4, 2, 0), (2, 100, 2, 0), (3, 100, 1, 1)]
    assert truth["images"][0] == {"id": 9, "file_name": "a.tif", "height": 20, "width": 30}


def test_the_truth_of_a_data_set_is_a_coco_file_of_the_same_cells(tmp_path):
    two_images(tmp_path)
    data = open_dataset(tmp_path, DatasetConfig())
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data.truth()))
    again = open_dataset(path, DatasetConfig())
    assert again.truth() == data.truth()
    assert again.cell_counts.tolist() == data.cell_counts.tolist()
    assert np.array_equal(again.label_maps(0) > 0, data.label_maps(0) > 0)


def test_two_coco_files_are_one_too_many(tmp_path):
    path = coco_folder(tmp_path / "set")
    shutil.copy(path, path.with_name("other.coco.json"))
    with pytest.raises(ValueError, match=r"expected one COCO file, found annotations\.json, other\.coco\.json"):
        open_dataset(path.parent, DatasetConfig())


def test_an_image_of_another_size_than_annotated_is_named(tmp_path):
    path = coco_folder(tmp_path / "set")
    tifffile.imwrite(tmp_path / "set" / "a.tif", np.zeros((30, 20, 3), np.uint8), photometric="rgb")
    with pytest.raises(ValueError, match=r"a\.tif: expected height 20 and width 30 as annotated, found \(30, 20\)"):
        open_dataset(path, DatasetConfig())


def test_every_file_is_checked_when_the_set_is_opened(tmp_path):
    two_images(tmp_path)
    broken = tmp_path / "train" / "a" / "class3.tif"
    broken.write_bytes(broken.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"class3\.tif: expected a whole tif"):
        open_dataset(tmp_path, DatasetConfig())


def test_missing_data_comes_with_the_layout_and_two_ways_on(tmp_path):
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError) as caught:
            open_dataset(place, DatasetConfig())
        for part in (str(place), "train/<name>/image.tif", "COCO", "cellseg sample data/"):
            assert part in str(caught.value)


def test_a_mistaken_level_is_pointed_out(tmp_path):
    two_images(tmp_path / "set")
    for place, hint in (
        (tmp_path, f"did you mean {tmp_path / 'set'}?"),
        (tmp_path / "set" / "train", "looks like the train folder itself"),
        (tmp_path / "set" / "train" / "a", "looks like one training image"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            open_dataset(place, DatasetConfig())
        assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "images", "cells", "order"),
    [
        ("hw3_sample", 1, [2, 159, 0, 0], "bgr"),
        ("monusac", 3, [329, 299, 7, 5], "rgb"),
        ("consep", 26, [242, 872, 2952, 1955], "rgb"),
        ("dsb2018", 19, [128, 222, 111, 390], "rgb"),
    ],
)
def test_the_real_sets_are_read_whole(name, images, cells, order):
    root = SHARED / name
    if not root.exists():
        pytest.skip(f"{root} is not here")
    start = time.perf_counter()
    data = open_dataset(root, DatasetConfig())
    assert time.perf_counter() - start < 20  # 1 s on two idle cores
    assert len(data) == images
    assert data.cell_counts.sum(axis=0).tolist() == cells
    assert data.channel_order == order
    truth = data.truth()
    assert len(truth["annotations"]) == sum(cells)
    last = data.label_maps(images - 1)
    codes = [code for plane in last for code in codes_of(plane)]
    assert [each["segmentation"] for each in truth["annotations"]][-len(codes) :] == codes
