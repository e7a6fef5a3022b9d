import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from cellseg.commands.lint import Lint
from cellseg.export import lint, write_submission
from cellseg.json_files import MEMBER, read_image_ids, read_results, read_truth

IMAGES = [
    {"file_name": "a.tif", "id": 1, "height": 20, "width": 30},
    {"file_name": "b.tif", "id": 2, "height": 20, "width": 30},
    {"file_name": "c.tif", "id": 7, "height": 8, "width": 9},
]


def code_of(x, y, w, h, size=(20, 30)):
    mask = np.zeros(size, np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    code = coco_mask.encode(mask)
    return {"size": list(size), "counts": code["counts"].decode()}


def result(**changes):
    plain = {"image_id": 1, "category_id": 2, "bbox": [3.0, 4.0, 5.0, 6.0], "score": 0.5}
    return plain | {"segmentation": code_of(3, 4, 5, 6)} | changes


def mask(**changes):
    return result(segmentation=code_of(3, 4, 5, 6) | changes)


def test_good_results_have_no_problem():
    on_the_edge = result(bbox=[-0.9, -0.9, 31.8, 21.8], score=0, segmentation={"size": (20, 30), "counts": "0hb0"})
    assert lint([result(), result(score=1), result(image_id=2), on_the_edge], IMAGES) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (7, "expected a dict, got 7"),
        ({}, "no image_id, category_id, bbox, score, segmentation"),
        (result(image_id=3), "image_id 3 is not in the id file"),
        (result(image_id=[1]), "image_id [1] is not in the id file"),
        (result(image_id="1"), "image_id '1' is not in the id file"),
        (result(category_id=0), "category_id 0 is not an integer from 1 to 4"),
        (result(category_id=5), "category_id 5 is not an integer from 1 to 4"),
        (result(category_id=2.0), "category_id 2.0 is not an integer from 1 to 4"),
        (result(category_id=True), "category_id True is not an integer from 1 to 4"),
        (result(score=1.01), "score 1.01 is not a number from 0 to 1"),
        (result(score=float("nan")), "score nan is not a number from 0 to 1"),
        (result(score="0.5"), "score '0.5' is not a number from 0 to 1"),
        (result(score=10**5000), "score of type int is not a number from 0 to 1"),
        (result(score=np.float32(0.5)), "is not a number from 0 to 1"),  # JSON cannot hold it
        (result(bbox=[1, 2, 3]), "bbox [1, 2, 3] is not four numbers"),
        (result(bbox=None), "bbox None is not four numbers"),
        (result(bbox=[1, 2, 3, float("inf")]), "is not finite"),
        (result(bbox=[1, 2, 10**400, 0.5]), "is not finite"),
        (result(bbox=[1, 2, -3, 4]), "has a negative size"),
        (result(bbox=[-2, 0, 4, 4]), "leaves its image of 20 x 30"),
        (result(bbox=[0, 0, 32, 4]), "leaves its image of 20 x 30"),
        (result(bbox=[4, 3, 5, 22]), "leaves its image of 20 x 30"),
        (result(segmentation=[[1, 2, 3]]), "is not a dict of size and counts"),
        (mask(size=[30, 20]), "size [30, 20] is not [20, 30] (height, width)"),
        (mask(size=[20.0, 30]), "size [20.0, 30] is not [20, 30] (height, width)"),
        (mask(size=None), "size None is not [20, 30]"),
        (mask(counts=b"0hb0"), "are not a str"),
        (mask(counts=[0, 600]), "are not a str"),
        (mask(counts="hello\0"), "not the text of a run-length code"),
        (mask(counts="0P"), "not the text of a run-length code"),
        (mask(counts="5O"), "a run of -1 pixels"),
        (mask(counts="04"), "cover 4 pixels, its image has 600"),
        (mask(counts="Pc0"), "cover 608 pixels, its image has 600"),
        (mask(counts="hb0"), "empty mask"),
    ],
)
def test_each_problem_is_named_once(bad, words):
    (line,) = lint([result(image_id=2), bad], IMAGES)
    assert line.startswith("result 1: ")
    assert words in line
    assert "\n" not in line


def test_several_problems_of_one_result_are_all_named():
    assert len(lint([result(category_id=0, score=2, bbox=None)], IMAGES)) == 3


def test_results_that_are_no_list_are_a_problem():
    assert lint({"results": []}, IMAGES) == ["expected a list of results, got {'results': []}"]


def test_exact_duplicates_are_a_problem():
    assert lint([result(), result(image_id=2), result(score=0.4), result()], IMAGES) == [
        "result 3: exact duplicate of result 0"
    ]


def test_the_number_of_classes_is_a_parameter():
    assert lint([result(category_id=5)], IMAGES, num_cell_classes=5) == []


def test_a_large_submission_is_a_problem():
    size = len(json.dumps([result()], separators=(",", ":")))
    assert lint([result()], IMAGES, max_bytes=size) == []
    assert lint([result()], IMAGES, max_bytes=size - 1) == [
        f"test-results.json would have {size} bytes, more than {size - 1}; raise the score threshold"
    ]


def test_the_problems_past_twenty_are_counted():
    lines = lint([7] * 33, IMAGES)
    assert len(lines) == 21
    assert lines[-1] == "… and 13 more problems"


garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
almost_counts = st.text(st.characters(min_codepoint=47, max_codepoint=112), max_size=12)
almost_mask = st.builds(lambda counts: {"size": [20, 30], "counts": counts}, almost_counts | garbage)
fields = st.sampled_from(["image_id", "category_id", "bbox", "score", "segmentation", "other"])
almost_results = st.dictionaries(fields, garbage | almost_mask, max_size=2).map(lambda changes: result(**changes))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(garbage | st.lists(garbage | almost_results, max_size=3))
def test_garbage_gives_lines_and_never_raises(results):
    lines = lint(results, IMAGES)
    assert all(isinstance(line, str) and "\n" not in line for line in lines)
    if not lines:
        for one in results:
            assert coco_mask.area(one["segmentation"]) > 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.4))
def test_every_mask_of_pycocotools_passes(seed, share):
    pixels = np.random.default_rng(seed).random((20, 30)) <= share
    pixels[seed % 20, seed % 30] = True
    code = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    assert lint([mask(counts=code["counts"].decode())], IMAGES) == []


def test_a_submission_is_one_json_file_in_a_zip(tmp_path):
    found = [result(score=0.25), result(image_id=7, category_id=4, bbox=[1, 2, 3, 4], score=1)]
    found[1]["segmentation"] = code_of(1, 2, 3, 4, (8, 9))
    summary = write_submission(found, IMAGES, tmp_path / "any name.zip")
    with zipfile.ZipFile(tmp_path / "any name.zip") as archive:
        assert archive.namelist() == ["test-results.json"]
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.infolist()[0].compress_type == zipfile.ZIP_DEFLATED
        assert json.loads(archive.read("test-results.json")) == found
    assert summary.total == 2
    assert summary.per_class == {1: 0, 2: 1, 3: 0, 4: 1}
    assert summary.images_without_cells == ("b.tif",)
    assert summary.bytes == (tmp_path / "any name.zip").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["any name.zip"]


def test_the_same_results_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "1.zip", tmp_path / "2.zip"
    write_submission([result(), result(score=0.1)], IMAGES, first)
    write_submission([result(score=0.1), result()], IMAGES, second)
    assert first.read_bytes() == second.read_bytes()


def test_what_a_killed_call_left_beside_the_submission_is_swept_away(tmp_path):
    (tmp_path / ".submission.zip.1.partial").write_bytes(b"half a zip")
    write_submission([result()], IMAGES, tmp_path / "submission.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["submission.zip"]


def test_rounding_keeps_the_order_of_scores(tmp_path):
    close = [0.50000011, 0.50000014, 0.50000012, 0.9]
    found = [result(score=score, category_id=k, bbox=[1 / 3, 2, 3, 4]) for k, score in enumerate(close, start=1)]
    write_submission(found, IMAGES, tmp_path / "x.zip")
    written = read_results(tmp_path / "x.zip")
    assert [one["score"] for one in written] == [0.9, 0.5, 0.5, 0.5]
    assert [one["category_id"] for one in written] == [4, 2, 3, 1]
    assert written[0]["bbox"] == [0.33, 2, 3, 4]


def test_nothing_but_the_five_keys_is_handed_in_and_the_argument_stays(tmp_path):
    found = [result(area=30)]
    write_submission(found, IMAGES, tmp_path / "x.zip")
    assert read_results(tmp_path / "x.zip") == [result()]
    assert found == [result(area=30)]


def test_no_results_are_a_submission_that_lint_warns_of_as_graders_fail_on_it(tmp_path, capsys):
    truth = COCO()
    truth.dataset = {"images": [], "categories": [], "annotations": []}
    with pytest.raises(IndexError):
        truth.loadRes([])
    summary = write_submission([], IMAGES, tmp_path / "x.zip")
    assert summary.images_without_cells == ("a.tif", "b.tif", "c.tif")
    (tmp_path / "ids.json").write_text(json.dumps(IMAGES))
    capsys.readouterr()
    assert Lint(tmp_path / "x.zip", tmp_path / "ids.json").run() == 1
    assert capsys.readouterr().out == "no results: pycocotools refuses an empty list\n"


def test_results_with_problems_leave_the_old_file(tmp_path):
    path = tmp_path / "x.zip"
    write_submission([result()], IMAGES, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"x\.zip: not written: result 0: score 3 .*; result 1: no image_id"):
        write_submission([result(score=3), {}], IMAGES, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing: no such folder; create it"):
        write_submission([result()], IMAGES, tmp_path / "missing" / "x.zip")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(IsADirectoryError):
        write_submission([result()], IMAGES, tmp_path / "folder.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.zip"]


def saved(tmp_path, content, name="x.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def zipped(tmp_path, member, content="[]"):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(member, content)
    return tmp_path / "x.zip"


def test_results_are_read_from_json_and_zip(tmp_path):
    assert read_results(saved(tmp_path, [result()])) == [result()]
    assert read_results(zipped(tmp_path, MEMBER, json.dumps([result()]))) == [result()]


def test_files_that_hold_no_results_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        read_results(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"x\.json: expected a list of results, got \{\}"):
        read_results(saved(tmp_path, {}))
    for broken in ("", "[1,", "[" * 100_000, "9" * 5000):
        with pytest.raises(ValueError, match=r"x\.json: expected JSON"):
            read_results(saved(tmp_path, broken))
    with pytest.raises(ValueError, match=r"x\.zip: .* the zip has no test-results\.json, only \['other\.json"):
        read_results(zipped(tmp_path, "other.json"))


def test_a_damaged_zip_is_named(tmp_path):
    path = zipped(tmp_path, MEMBER, "[1, 2, 3]")
    path.write_bytes(path.read_bytes().replace(b"[1, 2, 3]", b"[1, 2, 4]"))
    with pytest.raises(ValueError, match=r"x\.zip: .*CRC"):
        read_results(path)


TRUTH = {
    "images": IMAGES,
    "categories": [{"id": 1, "name": "one"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": code_of(3, 4, 5, 6)}],
}


def test_the_truth_is_read(tmp_path):
    assert read_truth(saved(tmp_path, TRUTH)) == TRUTH


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ([], "expected a COCO truth, a dict with a list of images, got"),
        ({"images": []}, "with a list of categories"),
        (TRUTH | {"images": [{"id": 1}]}, "images 0: expected a dict with file_name, id, height, width"),
        (TRUTH | {"annotations": [1]}, "annotations 0: expected a dict with id, image_id"),
        (
            TRUTH | {"annotations": [TRUTH["annotations"][0] | {"segmentation": [[1, 2, 3, 4]]}]},
            "annotation 0: expected a run-length code with size and counts",
        ),
    ],
)
def test_a_broken_truth_is_named(tmp_path, truth, words):
    with pytest.raises(ValueError, match=words):
        read_truth(saved(tmp_path, truth))


def test_image_ids_are_read(tmp_path):
    assert read_image_ids(saved(tmp_path, IMAGES)) == IMAGES
    assert read_image_ids(saved(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({}, r"expected a list of images with file_name, id, height, width, got \{\}"),
        ([7], "image 0: expected a dict with file_name, id, height, width, got 7"),
        ([{"file_name": "a.tif", "id": 1, "height": 3}], "image 0: expected a dict with"),
        ([IMAGES[0] | {"file_name": "../a.tif"}], r"image 0: expected a file name without folders, got '\.\./a\.tif'"),
        ([IMAGES[0] | {"file_name": "b\\a.tif"}], "without folders"),
        ([IMAGES[0] | {"file_name": ""}], "without folders"),
        ([IMAGES[0] | {"file_name": 3}], "without folders"),
        ([IMAGES[0] | {"height": 0}], "image 0: height 0 is not an integer from 1 on"),
        ([IMAGES[0] | {"width": 3.5}], "image 0: width 3.5 is not an integer from 1 on"),
        ([IMAGES[0] | {"id": "1"}], "image 0: id '1' is not an integer from 0 on"),
        ([*IMAGES, IMAGES[0] | {"file_name": "z.tif"}], "id 1 is given 2 times; expected once"),
        ([*IMAGES, IMAGES[0] | {"id": 8}], r"file_name 'a\.tif' is given 2 times; expected once"),
    ],
)
def test_broken_image_ids_are_named(tmp_path, images, words):
    with pytest.raises(ValueError, match=rf"x\.json: .*{words}"):
        read_image_ids(saved(tmp_path, images))
