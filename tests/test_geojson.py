"""GeoJSON: what is written is what QuPath reads, and what QuPath writes is read to the pixel."""

import json

import numpy as np
import pytest
from made_cells import SIZE, awkward_cells, masks_of, no_cells
from shapely.geometry import shape

from cellseg import geojson
from cellseg.codes import decode

SQUARE = [[[1, 1], [4, 1], [4, 3], [1, 3], [1, 1]]]


def feature(coordinates=SQUARE, kind="Polygon", classification=None, **more):
    """A feature as QuPath writes an annotation."""
    properties = {
        "objectType": "annotation",
        "classification": classification or {"name": "Tumor", "color": [200, 0, 0]},
    }
    return {
        "type": "Feature",
        "id": "0a7d7f0e-7f6e-4ab1-8a44-6a0e6d1d2b51",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties | more,
    }


def saved(folder, content):
    path = folder / "a.geojson"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def pixels_of(cell):
    return [(x, y) for y, x in np.argwhere(decode(cell.code)).tolist()]


def test_what_is_written_is_read_to_the_pixel(tmp_path):
    cells = awkward_cells()
    geojson.write(cells, tmp_path / "a.json")
    read = geojson.read(tmp_path / "a.json", SIZE)
    assert [cell.code for cell in read] == list(cells.codes)
    assert [cell.class_name for cell in read] == cells.names
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_polygons_are_valid_and_as_large_as_their_pixels(tmp_path):
    cells = awkward_cells()
    geojson.write(cells, tmp_path / "a.json")
    features = json.loads((tmp_path / "a.json").read_text())["features"]
    polygons = [shape(each["geometry"]) for each in features]
    assert all(polygon.is_valid for polygon in polygons)
    assert [polygon.area for polygon in polygons] == masks_of(cells.codes).sum(axis=(1, 2)).tolist()
    assert [polygon.geom_type for polygon in polygons][:4] == ["Polygon", "Polygon", "MultiPolygon", "Polygon"]


def test_a_feature_has_what_qupath_asks_of_it(tmp_path):
    geojson.write(awkward_cells(), tmp_path / "a.json")
    second = json.loads((tmp_path / "a.json").read_text())["features"][1]
    assert second["type"] == "Feature"
    assert second["geometry"]["coordinates"] == [
        [[10, 10], [15, 10], [15, 15], [10, 15], [10, 10]],
        [[13, 12], [12, 12], [12, 13], [13, 13], [13, 12]],
    ]
    assert second["properties"] == {
        "objectType": "detection",
        "name": "2",
        "classification": {"name": "mast cell", "color": [0, 190, 255]},  # QuPath refuses a name without a color
        "measurements": {"score": 1 - 1 / 1024},
    }


def test_no_cell_is_a_collection_without_features(tmp_path):
    geojson.write(no_cells(), tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == collection()
    assert geojson.read(tmp_path / "a.json", SIZE) == []


def test_fractions_of_pixels_decide_by_the_centres(tmp_path):
    drawn_by_hand = [[[1.4, 1.4], [3.6, 1.4], [3.6, 2.4], [1.4, 2.4], [1.4, 1.4]]]
    (cell,) = geojson.read(saved(tmp_path, collection(feature(drawn_by_hand))), (6, 8))
    assert pixels_of(cell) == [(1, 1), (2, 1), (3, 1)]


def test_holes_and_parts_are_kept(tmp_path):
    outer = [[0, 0], [5, 0], [5, 5], [0, 5], [0, 0]]
    other = [[[6, 0], [7, 0], [7, 1], [6, 1], [6, 0]]]
    (cell,) = geojson.read(saved(tmp_path, collection(feature([[outer, SQUARE[0]], other], "MultiPolygon"))), (6, 8))
    assert len(pixels_of(cell)) == 25 - 6 + 1
    assert (6, 0) in pixels_of(cell)
    assert (2, 2) not in pixels_of(cell)


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor"),  # before QuPath 0.4
        ({"names": ["Tumor", "Positive"], "color": [200, 0, 0]}, "Tumor: Positive"),
        ("Immune cells", "Immune cells"),
    ],
)
def test_a_class_is_read_in_each_of_qupaths_notations(tmp_path, classification, name):
    path = saved(tmp_path, collection(feature(classification=classification)))
    assert [cell.class_name for cell in geojson.read(path, (6, 8))] == [name]


@pytest.mark.parametrize(
    "content", [feature(), [feature()], collection(feature())], ids=["alone", "list", "collection"]
)
def test_features_stand_alone_in_a_list_or_in_a_collection(tmp_path, content):
    assert len(geojson.read(saved(tmp_path, content), (6, 8))) == 1


def test_of_a_cell_the_nucleus_is_read_and_nested_objects_too(tmp_path):
    nucleus = {"type": "Polygon", "coordinates": [[[2, 1], [3, 1], [3, 2], [2, 2], [2, 1]]]}
    cell = feature(objectType="cell") | {"nucleusGeometry": nucleus}
    parent = feature(childObjects=[cell])
    first, second = geojson.read(saved(tmp_path, collection(parent)), (6, 8))
    assert len(pixels_of(first)) == 6
    assert pixels_of(second) == [(2, 1)]


def test_an_object_without_a_class_is_named_or_gets_the_one_that_is_given(tmp_path):
    bare = feature()
    del bare["properties"]["classification"]
    for without in (bare, feature(classification={"color": [1, 2, 3]})):
        path = saved(tmp_path, collection(feature(), without))
        with pytest.raises(ValueError, match=r"a\.geojson: object 2: expected a classification, found none; set its"):
            geojson.read(path, (6, 8))
        assert [cell.class_name for cell in geojson.read(path, (6, 8), "other")] == ["Tumor", "other"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (collection(feature([1, 1], "Point")), "object 1: expected a Polygon or MultiPolygon, found 'Point'"),
        (collection(feature() | {"geometry": None}), "object 1: expected a Polygon or MultiPolygon, found None"),
        (collection(feature([[1, 2]])), "object 1: expected lists of points, x and y, found"),
        (collection(feature([[[1], [2], [3]]])), "object 1: expected lists of points"),
        (collection(feature([[["x", 2]]])), "object 1: expected lists of points"),
        (collection(feature(5)), "object 1: expected lists of points"),
        (collection(feature([[[90, 90], [95, 90], [95, 95]]])), "object 1: expected an outline around pixels"),
        (
            collection(feature(objectType="tile")),
            "object 1: expected annotation, detection or cell as objectType, found 'tile'",
        ),
        (collection(7), "expected GeoJSON with features"),
        ({"type": "FeatureCollection"}, "expected GeoJSON with features, found None"),
        ("text", "expected GeoJSON with features, found 'text'"),
    ],
)
def test_what_is_no_cell_is_refused_by_file_and_object(tmp_path, content, found):
    with pytest.raises(ValueError, match=rf"a\.geojson: {found}") as caught:
        geojson.read(saved(tmp_path, content), (6, 8))
    assert "\n" not in str(caught.value)


def test_what_is_no_json_and_what_is_not_there_are_told(tmp_path):
    path = tmp_path / "a.geojson"
    with pytest.raises(FileNotFoundError, match=r"a\.geojson: no such file"):
        geojson.read(path, (6, 8))
    path.write_bytes(b"\x80PK")
    with pytest.raises(ValueError, match=r"a\.geojson: expected GeoJSON, found .*; export it again"):
        geojson.read(path, (6, 8))
