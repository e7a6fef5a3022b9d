"""Annotations of QuPath and ImageJ become a data set of the same pixels and classes."""

import json
from functools import partial

import cv2
import numpy as np
import pytest
import tifffile
from made_cells import awkward_cells, cells_of_shapes, disc, noise

from cellseg import geojson, label_tif, rois
from cellseg.cells import Cells
from cellseg.cli import main
from cellseg.config import DatasetConfig
from cellseg.conversion import convert
from cellseg.dataset import open_dataset
from cellseg.formats import write
from cellseg.label_maps import codes_of
from cellseg.nuclei import KINDS
from cellseg.sample import write as write_sample

NAMES = ("epithelial", "mast cell")
SQUARE = [[[1, 1], [4, 1], [4, 3], [1, 3], [1, 1]]]


def image(folder, name="a.tif"):
    """An image of 60 x 80 pixels."""
    folder.mkdir(exist_ok=True)
    if name.endswith(".tif"):
        tifffile.imwrite(folder / name, noise(), photometric="rgb", compression="zlib")
    else:
        cv2.imwrite(str(folder / name), noise())
    return folder / name


@pytest.fixture
def source(tmp_path):
    """A folder for images and annotations."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A made-up data set, and the Cells of each of its images."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, train=2, test=0)
    data = open_dataset(folder, DatasetConfig())
    names = tuple(kind.name for kind in KINDS)
    cells = []
    for index, record in enumerate(data.records):
        coded = [(label, code) for label, plane in enumerate(data.label_maps(index), 1) for code in codes_of(plane)]
        labels, codes = zip(*coded, strict=True)
        cells.append(Cells(record.size_hw, codes, np.array(labels), np.ones(len(codes), np.float32), names))
    return data, cells


WRITERS = {
    ".geojson": geojson.write,
    ".geojson.json": geojson.write,
    ".rois.zip": rois.write,
    ".zip": rois.write,
    ".labels.tif": label_tif.write,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_data_set_is_the_same_after_a_tour_through_another_program(sample, source, tmp_path, ending):
    data, all_cells = sample
    for index, (record, cells) in enumerate(zip(data.records, all_cells, strict=True)):
        (source / f"{index}.tif").write_bytes(record.image_path.read_bytes())
        WRITERS[ending](cells, source / f"{index}{ending}")
        if ending == ".labels.tif":
            write(cells, data.image(index), source, str(index), ["csv"])
    names = tuple(kind.name for kind in KINDS)
    counts = convert(source, tmp_path / "out", names)
    again = open_dataset(tmp_path / "out", DatasetConfig())
    assert again.class_names == names == tuple(counts)
    assert list(counts.values()) == data.cell_counts.sum(axis=0).tolist()
    for index, record in enumerate(again.records):
        before, after = data.label_maps(index), again.label_maps(index)
        for plane, other in zip(before, after, strict=True):
            assert len(codes_of(plane)) == len(codes_of(other))
            pairs = np.unique(np.stack([plane[plane > 0], other[plane > 0]]), axis=1)
            assert len(pairs.T) == len(codes_of(plane))  # each cell is one cell, whatever its number
            assert np.array_equal(plane > 0, other > 0)
        assert record.image_path.read_bytes() == data.records[index].image_path.read_bytes()
        assert np.array_equal(again.image(index), data.image(index))


def test_classes_are_those_that_are_found_by_name_or_those_that_are_given_in_order(source, tmp_path):
    image(source)
    geojson.write(awkward_cells(), source / "a.geojson")
    assert convert(source, tmp_path / "found") == {"epithelial": 6, "mast cell": 3}
    given = ("mast cell", "stroma", "epithelial")
    assert list(convert(source, tmp_path / "given", given).items()) == list(zip(given, (3, 0, 6), strict=True))
    assert open_dataset(tmp_path / "given", DatasetConfig()).cell_counts.tolist() == [[3, 0, 6]]


def test_images_of_all_kinds_are_copied_as_they_are_and_results_beside_them_ignored(source, tmp_path):
    for name in ("a.tif", "b.png", "c.JPG"):
        image(source, name)
    geojson.write(awkward_cells(), source / "a.geojson.json")
    rois.write(awkward_cells(), source / "b.rois.zip")
    (source / "c.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    write(awkward_cells(), noise(), source, "a", ["overlay", "csv", "coco"])
    (source / ".hidden.png").write_bytes(b"")
    assert sum(convert(source, tmp_path / "out").values()) == 18
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["annotations.json", "images"]
    copies = sorted((tmp_path / "out" / "images").iterdir())
    assert [path.name for path in copies] == ["a.tif", "b.png", "c.JPG"]
    assert all(path.read_bytes() == (source / path.name).read_bytes() for path in copies)
    assert open_dataset(tmp_path / "out", DatasetConfig()).cell_counts.tolist() == [[6, 3], [6, 3], [0, 0]]


def test_annotations_that_overlap_stay_as_they_were_drawn(source, tmp_path):
    image(source)
    both = cells_of_shapes((10, 10, disc(8), 1), (14, 10, disc(4), 1))
    geojson.write(both, source / "a.geojson")
    convert(source, tmp_path / "out")
    data = open_dataset(tmp_path / "out", DatasetConfig())
    assert data.overlaps == 1
    assert [each["segmentation"] for each in data.truth()["annotations"]] == list(both.codes)


def bare(folder, properties):
    """One object of such properties."""
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": SQUARE}, "properties": properties}
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def test_objects_without_a_class_get_the_one_that_is_given(source, tmp_path):
    image(source)
    bare(source, {"objectType": "annotation"})
    assert convert(source, tmp_path / "out", unclassified="cell") == {"cell": 1}


def annotated(folder, name="a"):
    geojson.write(awkward_cells(), folder / f"{name}.geojson")


def nothing(folder):
    """Leaves the folder as it is."""


BROKEN = {
    "no annotation": (nothing, (), r"source: expected annotations, such as a\.geojson or .*, found none; export them"),
    "an image too many": (
        lambda folder: [annotated(folder), image(folder, "b.png")],
        (),
        r"b\.png: expected an annotation, .*, found none; export it there, or take the image away",
    ),
    "an annotation too many": (
        lambda folder: [annotated(folder), annotated(folder, "c")],
        (),
        r"c\.geojson: expected its image c\.tif, \.png or \.jpg beside it, found none; put it there",
    ),
    "two annotations": (
        lambda folder: [annotated(folder), rois.write(awkward_cells(), folder / "a.zip")],
        (),
        r"source: expected one annotation called a, found a\.geojson and a\.zip; keep one",
    ),
    "two images": (
        lambda folder: [annotated(folder), image(folder, "a.png")],
        (),
        r"source: expected one image called a, found a\.png and a\.tif; keep one",
    ),
    "an unknown class": (annotated, ("epithelial",), r"a\.geojson: expected the classes epithelial, found mast cell; "),
    "a class twice": (
        annotated,
        (*NAMES, "epithelial"),
        r"--classes: expected each class once, found epithelial, mast",
    ),
    "an object without a class": (
        partial(bare, properties={"objectType": "annotation"}),
        (),
        r"a\.geojson: object 1: expected a classification, found none",
    ),
    "a broken image": (
        lambda folder: [annotated(folder), (folder / "a.tif").write_text("hello")],
        (),
        r"a\.tif: expected a tif, png or jpg",
    ),
    "no cell at all": (
        lambda folder: (folder / "a.geojson").write_text("[]"),
        (),
        r"source: expected cells, found none; annotate some, or name the classes by --classes",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_missing_or_too_many_is_told_in_a_line_and_nothing_written(source, tmp_path, name):
    make, classes, found = BROKEN[name]
    image(source)
    make(source)
    with pytest.raises((ValueError, FileNotFoundError), match=found) as caught:
        convert(source, tmp_path / "out", classes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_there_or_in_use_are_refused(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder of images with their annotations"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    image(source)
    annotated(source)
    convert(source, tmp_path / "out")
    before = (tmp_path / "out" / "annotations.json").read_bytes()
    for used in (tmp_path / "out", source / "a.tif"):
        with pytest.raises(ValueError, match="expected a new folder, found"):
            convert(source, used)
    assert (tmp_path / "out" / "annotations.json").read_bytes() == before


def test_a_copy_that_fails_leaves_nothing(source, tmp_path, monkeypatch):
    image(source)
    annotated(source)
    monkeypatch.setattr("cellseg.conversion.write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_tells_what_it_wrote_and_errors_in_a_line(source, tmp_path, monkeypatch, capsys):
    image(source)
    annotated(source)
    monkeypatch.chdir(tmp_path)

    def ended(*arguments):
        monkeypatch.setattr("sys.argv", ["cellseg", "convert", "source", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code

    assert ended("out", "--classes", "mast cell", "epithelial") == 0
    assert capsys.readouterr().out == "out: 9 cells: mast cell 3, epithelial 6\n"
    assert ended("other", "--classes", "stroma") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: source/a.geojson: expected the classes stroma, found epithelial; rename it")
    assert said.count("\n") == 1
