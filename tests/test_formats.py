"""All formats of the same cells, read by readers that we did not write, agree with each other."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tifffile
from made_cells import awkward_cells, cells_of_shapes, disc, no_cells, noise
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from roifile import roiread
from shapely.geometry import shape

from cellseg.colors import COLORS
from cellseg.formats import FORMATS, path_of, write


def written(folder, cells):
    """The file of each format."""
    paths = write(cells, noise(cells.size_hw), folder, "a", FORMATS, image_id=7, file_name="a.tif")
    assert sorted(folder.iterdir()) == sorted(paths)  # and no temporary file
    return dict(zip(FORMATS, paths, strict=True))


def centres_of(label_map, count):
    """Areas (N,) and centres (N, 2) xy, pixels as squares."""
    places = [np.argwhere(label_map == number) for number in range(1, count + 1)]
    return [len(each) for each in places], np.array([each.mean(axis=0)[::-1] + 0.5 for each in places])


def crowd():
    """Discs that touch, in an image that they reach the border of."""
    dots = [(2 + 17 * column, 1 + 19 * row, disc(8), 1 + (row + column) % 2) for row in range(3) for column in range(4)]
    return cells_of_shapes(*dots, (0, 59, np.ones((1, 5)), 1), (79, 0, np.ones((60, 1)), 2))


@pytest.mark.parametrize("cells", [awkward_cells(), crowd()], ids=["awkward", "crowd"])
def test_all_formats_tell_the_same_of_each_cell(tmp_path, cells):
    paths = written(tmp_path / "new" / "folder", cells)
    label_map = tifffile.imread(paths["labels"])
    assert np.array_equal(label_map, cells.to_label_map())
    areas, centres = centres_of(label_map, len(cells))

    coco = COCO(str(paths["coco"]))
    entries = [coco.anns[number] for number in range(1, len(cells) + 1)]
    assert [each["area"] for each in entries] == areas
    assert [each["bbox"] for each in entries] == [coco_mask.toBbox(code).tolist() for code in cells.codes]
    for number, each in enumerate(entries, start=1):
        assert np.array_equal(coco.annToMask(each), label_map == number)

    features = json.loads(paths["geojson"].read_text())["features"]
    polygons = [shape(each["geometry"]) for each in features]
    assert [polygon.area for polygon in polygons] == areas
    assert np.allclose([polygon.centroid.coords[0] for polygon in polygons], centres)

    rois = roiread(paths["rois"])
    boxes = [(each.left, each.top, each.right - each.left, each.bottom - each.top) for each in rois]
    assert boxes == [tuple(each["bbox"]) for each in entries]

    table = pd.read_csv(paths["csv"])
    assert table["area"].tolist() == areas
    assert np.allclose(table[["centroid_x", "centroid_y"]], centres, atol=1e-5)

    names = [coco.cats[each["category_id"]]["name"] for each in entries]
    assert names == cells.names == table["class"].tolist()
    assert names == [each["properties"]["classification"]["name"] for each in features]
    assert names == [each.name.partition("-")[2] for each in rois]
    numbers = list(range(1, len(cells) + 1))
    assert numbers == table["number"].tolist() == [int(each["properties"]["name"]) for each in features]
    assert numbers == [int(each.name.partition("-")[0]) for each in rois]
    scores = cells.scores.tolist()
    assert [each["score"] for each in entries] == scores
    assert [each["properties"]["measurements"]["score"] for each in features] == scores
    assert table["score"].tolist() == pytest.approx(scores, abs=1e-5)

    with Image.open(paths["overlay"]) as picture:
        pixels = np.asarray(picture)[:60, :80]
    for number, label in enumerate(cells.labels, start=1):
        y, x = np.argwhere(label_map == number)[0]  # the first pixel of a cell is on its outline
        assert tuple(pixels[y, x]) == COLORS[label - 1]


def test_coco_json_names_the_image_as_it_is_told_to(tmp_path):
    content = json.loads(written(tmp_path / "out", awkward_cells())["coco"].read_text())
    assert content["images"] == [{"id": 7, "file_name": "a.tif", "height": 60, "width": 80}]
    assert {each["image_id"] for each in content["annotations"]} == {7}
    (path,) = write(no_cells(), noise(), tmp_path, "slide 3", ["coco"])
    assert json.loads(path.read_text())["images"][0] == {"id": 1, "file_name": "slide 3", "height": 60, "width": 80}


def test_an_image_without_cells_is_a_file_in_each_format(tmp_path):
    paths = written(tmp_path / "out", no_cells())
    assert not tifffile.imread(paths["labels"]).any()
    assert json.loads(paths["coco"].read_text())["annotations"] == []
    assert json.loads(paths["geojson"].read_text())["features"] == []
    assert roiread(paths["rois"]) == []
    assert len(pd.read_csv(paths["csv"])) == 0
    with Image.open(paths["overlay"]) as picture:
        assert np.array_equal(np.asarray(picture)[:60, :80], noise())


def test_files_are_called_by_name_format_and_ending(tmp_path):
    names = [path_of(tmp_path, "a.b", format).name for format in FORMATS]
    assert names == [
        *("a.b.labels.tif", "a.b.coco.json", "a.b.geojson.json", "a.b.rois.zip", "a.b.csv.csv", "a.b.overlay.png")
    ]


def test_only_the_formats_that_are_asked_for_are_written(tmp_path):
    assert write(awkward_cells(), noise(), tmp_path, "a", ["csv", "labels"]) == [
        tmp_path / "a.csv.csv",
        tmp_path / "a.labels.tif",
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="format: expected labels, coco, geojson, rois, csv, overlay, got 'svg'"):
        write(awkward_cells(), noise(), tmp_path / "out", "a", ["csv", "svg"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_write_that_fails_leaves_the_file_of_before(tmp_path, format):
    (path,) = write(awkward_cells(), noise(), tmp_path, "a", [format])
    before = path.read_bytes()
    broken = awkward_cells()
    broken.codes[-1]["counts"] = "é"
    with pytest.raises(ValueError):
        write(broken, noise(), tmp_path, "a", [format])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_names_of_the_formats_are_known_without_loading_what_writes_them():
    code = "import sys; import cellseg.formats; print({'torch', 'cv2', 'tifffile', 'numpy'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
