import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cellseg.coco import read_coco
from cellseg.codes import decode

MASK = np.zeros((8, 10), np.uint8)
MASK[2:5, 3:7] = 1
CODE = coco_mask.encode(np.asfortranarray(MASK))["counts"].decode()
RUNS = [26, 3, 5, 3, 5, 3, 5, 3, 27]  # down the columns, from column 3 on
SQUARE = [3, 2, 7, 2, 7, 5, 3, 5]


def annotation(segmentation, number=17, category=7, image=5, **more):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def runs(counts, size=(8, 10)):
    return {"size": list(size), "counts": counts}


def written(folder, *annotations, **replaced):
    """A COCO file of one image of 8 x 10, id 5, and the classes 3 and 7."""
    (folder / "a.png").write_bytes(cv2.imencode(".png", np.zeros((8, 10, 3), np.uint8))[1].tobytes())
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 8, "width": 10}],
        "categories": [{"id": 7, "name": "late"}, {"id": 3, "name": "early"}],
        "annotations": annotations,
        **replaced,
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("segmentation", [[SQUARE], runs(CODE), runs(RUNS)], ids=["polygon", "text", "list"])
def test_all_notations_give_the_same_cell(tmp_path, segmentation):
    (image,), _ = read_coco(written(tmp_path, annotation(segmentation)))
    (cell,) = image.annotation.coded
    assert np.array_equal(decode(cell.code), MASK)
    assert cell.code == {"size": [8, 10], "counts": CODE}


def test_runs_longer_than_five_bits_and_differences_are_read(tmp_path):
    mask = np.random.default_rng(0).random((200, 300)) < 0.01
    mask[50:150, 100:200] = True
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    path = written(
        tmp_path,
        annotation(runs(code, (200, 300))),
        images=[{"id": 5, "file_name": "a.png", "height": 200, "width": 300}],
    )
    assert read_coco(path)[0][0].annotation.coded[0].code["counts"] == code


def test_parts_of_one_polygon_list_are_one_cell(tmp_path):
    (image,), _ = read_coco(written(tmp_path, annotation([[0, 0, 2, 0, 2, 2, 0, 2], SQUARE])))
    (cell,) = image.annotation.coded
    assert decode(cell.code).sum() == 12 + 4


def test_categories_in_order_of_id_become_labels_from_one(tmp_path):
    path = written(tmp_path, annotation([SQUARE], 1, 7), annotation([SQUARE], 2, 3, iscrowd=1))
    (image,), names = read_coco(path)
    assert names == ("early", "late")
    assert [(cell.label, cell.crowd) for cell in image.annotation.coded] == [(2, False), (1, True)]
    assert (image.image_id, image.file_name, image.size_hw) == (5, "a.png", (8, 10))


def test_images_may_lie_in_a_folder_and_have_no_cell(tmp_path):
    path = written(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "images" / "a.png")
    (image,), _ = read_coco(path)
    assert image.path == tmp_path / "images" / "a.png"
    assert image.annotation.coded == ()


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (annotation([SQUARE[:4]]), "6 or more numbers.*3, 2, 7, 2"),
        (annotation([SQUARE[:7]]), "6 or more numbers"),
        (annotation([]), "6 or more numbers"),
        (annotation([SQUARE[0]]), "6 or more numbers"),
        (annotation([[1e9, 0, 2, 0, 2, 2]]), "6 or more numbers"),
        (annotation([[float("nan"), 0, 2, 0, 2, 2]]), "6 or more numbers"),
        (annotation([[-9, -9, -5, -9, -5, -5]]), "at least one pixel"),
        (annotation(runs(RUNS[:-1])), "runs that fill its image"),
        (annotation(runs([30, -5, 55])), "runs that fill its image"),
        (annotation(runs([40.0, 40.0])), "runs that fill its image"),
        (annotation(runs(CODE[:-2])), "runs that fill its image"),
        (annotation(runs("é")), "runs that fill its image"),
        (annotation(runs("")), "runs that fill its image"),
        (annotation(runs(RUNS, (10, 8))), r"size \[8, 10\], found .* of size \[10, 8\]"),
        (annotation(runs([80])), "at least one pixel"),
        (annotation({"size": [8, 10]}), "counts as list or str, found no such field"),
        (annotation(None), "segmentation as list or dict, found None"),
        (annotation([SQUARE], category=8), "category_id of an entry of the file, found 8"),
        (annotation([SQUARE], image=6), "image_id of an entry of the file, found 6"),
    ],
)
def test_a_faulty_annotation_is_refused_by_file_and_number(tmp_path, entry, found):
    path = written(tmp_path, entry)
    with pytest.raises(ValueError, match=rf"annotations\.json: annotation 17: expected .*{found}") as caught:
        read_coco(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("replaced", "found"),
    [
        ({"annotations": [{"image_id": 5}]}, r"annotations\[0\]: expected id as int, found no such field"),
        ({"annotations": [annotation([SQUARE])] * 2}, "expected unique ids, found 17 twice"),
        ({"annotations": None}, "expected annotations as list, found None"),
        ({"annotations": [4]}, r"annotations\[0\]: expected an object, found int"),
        ({"images": []}, "expected images, found none"),
        ({"images": [{"id": 5, "file_name": "a.png", "height": 8}]}, "image 5: expected width as int"),
        ({"images": [{"id": 5, "file_name": "a.png", "height": 0, "width": 10}]}, "found 0 x 10"),
        ({"images": [{"id": k, "file_name": "a.png", "height": 8, "width": 10} for k in (1, 2)]}, "a file_name twice"),
        ({"categories": [{"id": True, "name": "x"}]}, r"categories\[0\]: expected id as int, found True"),
        ({"categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]}, "found one twice in x, x"),
        ({"categories": [{"id": 1}]}, "category 1: expected name as str"),
    ],
)
def test_a_faulty_file_is_refused_by_entry(tmp_path, replaced, found):
    with pytest.raises(ValueError, match=rf"annotations\.json: .*{found}"):
        read_coco(written(tmp_path, **replaced))


def test_a_missing_image_file_is_named(tmp_path):
    path = written(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 5: no file .*a\.png or .*images.a\.png"):
        read_coco(path)


@pytest.mark.parametrize("text", ["{", "[]", "\x89PNG", ""])
def test_what_is_no_coco_json_is_refused(tmp_path, text):
    path = tmp_path / "annotations.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"annotations\.json: expected (a )?COCO"):
        read_coco(path)
