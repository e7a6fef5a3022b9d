"""Each warning on a folder that has just that fault; `clean` shows that there is none without it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from test_dataset import PINK, PURPLE
from test_survey import to_predict

from cellseg.config import DatasetConfig, PredictConfig
from cellseg.findings import findings
from cellseg.survey import survey

PREDICT = PredictConfig(zoom=1.0, overlap=32, detections=200)


def grid(*per_class, side=6, shift=0, size_hw=(80, 90)):
    """Label maps of so many square cells of each class, row by row, a pixel apart and shifted to the right."""
    label_maps = np.zeros((4, *size_hw), np.int32)
    labels = np.repeat(np.arange(4), per_class)
    across = (size_hw[1] - shift) // (side + 1)
    for number, label in enumerate(labels.tolist()):
        y, x = (side + 1) * (number // across), (side + 1) * (number % across) + shift
        label_maps[label, y : y + side, x : x + side] = number + 1
    return label_maps


def picture_of(label_maps):
    return np.where(label_maps.any(axis=0)[:, :, None], PURPLE, PINK).astype(np.uint8)


def write(root, name, label_maps):
    """A training folder; the image, for what is made of it."""
    folder = root / "train" / name
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "image.tif", picture_of(label_maps), photometric="rgb")
    for label, plane in enumerate(label_maps, start=1):
        if plane.any():
            tifffile.imwrite(folder / f"class{label}.tif", plane.astype(np.float64), metadata=None)
    return picture_of(label_maps)


@pytest.fixture
def clean(tmp_path):
    """Three images with 20 cells each, 5 of each class."""
    for shift, name in enumerate("abc"):
        write(tmp_path, name, grid(5, 5, 5, 5, shift=shift))
    return tmp_path


def found_in(root, predict=PREDICT, minimum_area=4):
    """The warnings as (kind, text, names)."""
    found = findings(survey(root, DatasetConfig()), predict, minimum_area)
    return [(one.kind, one.text, one.names) for one in found]


def only(root, **options):
    (finding,) = found_in(root, **options)
    assert "\n" not in finding[1]
    return finding


def test_a_sound_folder_has_no_warning(clean):
    to_predict(clean, x=picture_of(grid(9, 9, 9, 9)))
    assert found_in(clean) == []


def test_broken_files_come_with_the_reason(clean):
    write(clean, "d", grid(5, 5, 5, 5, shift=3))
    (clean / "train" / "d" / "image.tif").write_bytes(b"")
    kind, text, names = only(clean)
    assert (kind, names) == ("broken", ())
    assert text.startswith(f"{clean}/train/d/image.tif: expected a tif")
    assert "found an empty file; copy it again" in text


def test_a_training_image_that_is_a_test_image_is_told_with_both_names(clean):
    to_predict(clean, x=picture_of(grid(5, 5, 5, 5, shift=1)), y=picture_of(grid(9, 9, 9, 9)))
    kind, text, names = only(clean)
    assert (kind, names) == ("duplicates", ("b",))
    assert text.startswith("1 training image with the pixels of a test image: b = x.tif; take out of train/")


def test_two_images_with_the_same_pixels_can_land_on_both_sides_of_a_split(clean):
    write(clean, "d", grid(5, 5, 5, 5, shift=1))
    kind, text, names = only(clean)
    assert (kind, names) == ("duplicates", ("b", "d"))
    assert text.startswith("the same pixels under several names: b = d; a split can put one on either side: keep one")


def test_of_one_source_they_stay_on_one_side(clean):
    write(clean, "d", grid(5, 5, 5, 5, shift=1))
    rows = "a,s1\nb,s2\nc,s3\nd,s2\n"
    (clean / "manifest.csv").write_text(f"id,source\n{rows}")
    assert only(clean)[1].endswith("b = d; keep one, or it counts double")
    (clean / "manifest.csv").write_text(f"id,source\n{rows.replace('d,s2', 'd,s4')}")
    assert "a split can put one on either side" in only(clean)[1]


def test_an_image_of_one_colour_is_blank_in_training_and_test(clean):
    tifffile.imwrite(clean / "train" / "b" / "image.tif", np.full((80, 90, 3), 255, np.uint8), photometric="rgb")
    to_predict(clean, x=np.zeros((9, 9, 3), np.uint8))
    kind, text, names = only(clean)
    assert (kind, names) == ("blank", ("b", "x.tif"))
    assert text.startswith("2 images of one colour all over: b, x.tif; copy again from the source")


def test_an_image_without_a_cell_is_empty(clean):
    empty = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
    (clean / "train" / "d").mkdir()
    tifffile.imwrite(clean / "train" / "d" / "image.tif", empty, photometric="rgb")
    kind, text, names = only(clean)
    assert (kind, names) == ("empty", ("d",))
    assert text.startswith("1 image without a cell: d; fine if there is none to see")


def test_a_class_with_fewer_than_ten_cells_is_rare(tmp_path):
    write(tmp_path, "a", grid(10, 9, 12, 0))
    kind, text, names = only(tmp_path)
    assert (kind, names) == ("rare", ("class2", "class4"))
    assert text.startswith("fewer than 10 cells of a class: class2 has 9, class4 has none; too few to learn")


def test_a_cell_that_lost_pixels_to_one_of_its_class_overlaps(tmp_path):
    squares = [[8 * k, 0, 8 * k + 6, 0, 8 * k + 6, 6, 8 * k, 6] for k in range(12)]
    squares.append([3, 3, 15, 3, 15, 20, 3, 20])  # loses to the first and the second, which are smaller
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "segmentation": [square]}
        for number, square in enumerate(squares)
    ]
    image = {"id": 1, "file_name": "a.tif", "height": 30, "width": 100}
    categories = [{"id": 1, "name": "nucleus"}]
    content = {"images": [image], "categories": categories, "annotations": annotations}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    pixels = np.random.default_rng(0).integers(0, 255, (30, 100, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    kind, text, names = only(tmp_path)
    assert (kind, names) == ("overlaps", ("a.tif",))
    assert text.startswith(
        "1 cell that lost pixels to a smaller cell of the same class; training sees the rest: a.tif (1)"
    )


def test_cells_of_two_classes_on_one_pixel_overlap(clean):
    label_maps = grid(5, 5, 5, 5, shift=1)
    label_maps[3, 2:4, 2:4] = 99  # within a cell of class 1
    write(clean, "b", label_maps)
    kind, text, names = only(clean)
    assert (kind, names) == ("overlaps", ("b",))
    assert text.startswith("2 cells that share pixels with a cell of another class: b (2); if one cell was annotated")


def test_cells_under_the_minimum_area_are_small(clean):
    label_maps = grid(5, 5, 5, 5, shift=1)
    label_maps[0, 60, 10:13], label_maps[1, 60, 20:24] = 90, 91  # of 3 and 4 pixels
    write(clean, "b", label_maps)
    kind, text, names = only(clean)
    assert (kind, names) == ("small", ("b",))
    assert text.startswith("1 cell of fewer than 4 pixels (--dataset.minimum-area), not trained on: b (1); remove")
    assert only(clean, minimum_area=5)[1].startswith("2 cells of fewer than 5 pixels")
    assert found_in(clean, minimum_area=3) == []


def test_more_than_100_cells_of_a_class_cap_both_scores(tmp_path):
    write(tmp_path, "a", grid(120, 10, 10, 10, side=4))
    of_class, of_image = found_in(tmp_path)
    # recall 100 of 120, so 84 of 101 recalls in class 1, and 1 in three: (84 / 101 + 3) / 4
    assert of_class[:2] == (
        "caps",
        "1 of 1 image with more than 100 cells of a class: COCO's AP counts 100 of them, so that no detector exceeds "
        "0.958; read the uncapped AP of `cellseg score` too",
    )
    # of 100 detections 30 for the rare ones and 70 of 120: recalls 0 to .58, (59 / 101 + 3) / 4
    assert "torchvision keeps 100 by default, for an AP of 0.896 at best; keep more, as the Plan does" in of_image[1]
    assert of_class[2] == of_image[2] == ("a",)


def test_100_cells_of_a_class_are_under_the_cap_of_coco(tmp_path):
    write(tmp_path, "a", grid(100, 10, 10, 10, side=4))
    kind, text, _ = only(tmp_path)
    assert (kind, "1 of 1 image with more than 100 cells: torchvision" in text) == ("caps", True)


@pytest.mark.parametrize("cap", ["detections", "proposals"])
def test_a_tile_of_more_cells_than_it_keeps_is_told(clean, cap):
    write(clean, "d", grid(10, 10, 10, 10))
    kind, text, names = only(clean, predict=replace(PREDICT, **{cap: 39}))
    assert (kind, names) == ("caps", ("d",))
    assert text == (
        f"1 image where a tile holds up to 40 cells and keeps 39 {cap}: d; raise --predict.{cap}, "
        "or lower --predict.tile"
    )
    assert found_in(clean, predict=replace(PREDICT, **{cap: 40})) == []


def test_tiles_count_and_not_images(clean):
    write(clean, "d", grid(10, 10, 10, 10))  # three rows of 12 and one of 4, in 28 rows of pixels
    left = replace(PREDICT, tile=50, overlap=8, detections=27)  # columns 0 to 50 and 40 to 90: 7 x 3 + 4 and 6 x 3
    assert found_in(clean, predict=left) == []
    assert "holds up to 25 cells" in only(clean, predict=replace(left, detections=24))[1]


def test_three_names_are_given_and_the_others_counted(clean):
    for number in range(5):
        write(clean, f"d{number}", grid(5, 5, 5, 5, shift=number))
        blank = np.full((80, 90, 3), number, np.uint8)
        tifffile.imwrite(clean / "train" / f"d{number}" / "image.tif", blank, photometric="rgb")
    _, text, names = only(clean)
    assert names == ("d0", "d1", "d2", "d3", "d4")
    assert text.startswith("5 images of one colour all over: d0, d1, d2 and 2 more; ")
