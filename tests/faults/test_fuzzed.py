"""Files made by chance, a fixed number of them, the same in every run: each is read as it is, or named in one line."""

import json
import zipfile

import numpy as np
import pytest
import tifffile
from commands import ALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from cellseg import json_files
from cellseg.annotations import ClassFiles
from cellseg.codes import decode, encode, run_lengths, well_formed
from cellseg.export import lint
from cellseg.json_files import MEMBER, read_image_ids, read_results, read_scorable, read_truth

RUNS = 5000 if ALL else 200
fuzz = settings(
    max_examples=RUNS, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
IMAGES = [{"file_name": f"{name}.tif", "id": number, "height": 20, "width": 30} for number, name in enumerate("ab")]
CODE = encode([np.ones((3, 4), bool)], np.array([[5, 6]]), (20, 30))[0]
RESULTS = [{"image_id": 1, "category_id": 2, "bbox": [5, 6, 4, 3], "score": 0.5, "segmentation": CODE}]
TRUTH = {"images": IMAGES, "categories": [{"id": 1, "name": "one"}], "annotations": [{"id": 1, **RESULTS[0]}]}
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@st.composite
def changed(draw, value):
    """A JSON value with something else in one place of it."""
    if draw(st.booleans()) or not isinstance(value, list | dict) or not value:
        return draw(anything)
    copy = value.copy()
    place = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    if draw(st.integers(0, 3)) == 0:
        del copy[place]
    else:
        copy[place] = draw(changed(value[place]))
    return copy


@st.composite
def damaged(draw, value):
    """The bytes of a JSON file that was cut, or of which a byte is another."""
    content = bytearray(json.dumps(value).encode())
    place = draw(st.integers(0, len(content) - 1))
    if draw(st.booleans()):
        return bytes(content[:place])
    content[place] = draw(st.integers(0, 255))
    return bytes(content)


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def read_or_named(read, path):
    """What is read; None where the file is refused, as it must be told."""
    told = ""
    try:
        return read(path)
    except ValueError as error:
        told = str(error)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    return None


@fuzz
@given(changed(IMAGES) | damaged(IMAGES))
def test_an_id_file(tmp_path, content):
    images = read_or_named(read_image_ids, written(tmp_path / "ids.json", content))
    for image in images or []:
        assert (type(image["id"]), type(image["height"]), type(image["width"])) == (int, int, int)
        assert (tmp_path / image["file_name"]).parent == tmp_path
    if images is not None:
        assert len({image["id"] for image in images}) == len({image["file_name"] for image in images}) == len(images)


@fuzz
@given(changed(RESULTS) | damaged(RESULTS))
def test_a_file_of_results(tmp_path, content):
    path = written(tmp_path / "results.json", content)
    read_or_named(read_scorable, path)
    results = read_or_named(read_results, path)
    lines = lint(results, IMAGES) if results is not None else ["refused"]
    assert all("\n" not in line for line in lines)
    for result in results if results and not lines else []:
        assert 0 < decode(result["segmentation"]).sum() <= 600


@fuzz
@given(changed(TRUTH) | damaged(TRUTH))
def test_a_file_of_truth(tmp_path, content):
    truth = read_or_named(read_truth, written(tmp_path / "truth.json", content))
    assert truth is None or {"images", "categories", "annotations"} <= truth.keys()


@fuzz
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_zip(tmp_path, noise, place):
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, json.dumps(RESULTS))
    content = bytearray(path.read_bytes())
    content[place : place + len(noise)] = noise
    results = read_or_named(read_results, written(path, bytes(content)))
    assert results in (None, RESULTS) or isinstance(results, list)


def test_a_zip_that_unpacks_to_more_than_is_read(tmp_path, monkeypatch):
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, "[" + " " * 100_000 + "]")
    assert read_results(path) == []
    monkeypatch.setattr(json_files, "MOST_BYTES", 100_001)
    with pytest.raises(ValueError, match=r"results\.zip: .* unpacks to .* GiB.* unzip it"):
        read_results(path)


@fuzz
@given(st.text(st.characters(min_codepoint=46, max_codepoint=113), max_size=14) | st.text(max_size=4))
def test_a_run_length_code(counts):
    """What passes is what pycocotools reads without a step out of its memory: non-negative runs of its own text."""
    try:
        runs = run_lengths(counts)
    except ValueError:
        return
    assert well_formed([counts])
    assert min(runs) >= 0
    total = sum(runs)
    if 0 < total < 10_000:
        pixels = coco_mask.decode({"size": [total, 1], "counts": counts})[:, 0]
        assert pixels.tolist() == np.repeat(np.arange(len(runs)) % 2, runs).tolist()


@fuzz
@given(
    arrays(
        st.sampled_from([np.float64, np.float32, np.int32, np.uint16, np.uint8]),
        array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements={"min_value": 0, "max_value": 9},
    ),
    st.sampled_from([0, 0.5, -1, 65_536, 2.0**31, float("nan"), float("inf")]),
)
def test_a_label_tif(tmp_path, label_map, odd):
    path = tmp_path / "class1.tif"
    with np.errstate(invalid="ignore", over="ignore"):
        label_map[0, 0] += np.asarray(odd).astype(label_map.dtype)
    tifffile.imwrite(path, label_map, metadata=None)
    found = read_or_named(lambda _: ClassFiles({1: path}, 1).label_maps(label_map.shape), path)
    if found is not None:
        assert found.shape == (1, *label_map.shape)
        assert np.array_equal(found[0], label_map.astype(np.float64))
