"""COCO's notation: pycocotools and our own reader understand it."""

import json

import cv2
import numpy as np
from made_cells import SIZE, awkward_cells, masks_of
from pycocotools import mask as coco_mask

from cellseg.coco import read_coco
from cellseg.truth import CodedImage, truth_of


def images():
    cells = awkward_cells()
    labels = cells.labels.tolist()
    found = CodedImage(7, "b.png", SIZE, cells.codes, labels, cells.scores.tolist())
    return [CodedImage(3, "a.png", SIZE, cells.codes[:2], labels[:2]), CodedImage(5, "none.png", SIZE, (), ()), found]


def test_annotations_count_from_one_over_all_images():
    truth = truth_of(images(), ("epithelial", "mast cell"))
    assert [each["id"] for each in truth["annotations"]] == list(range(1, 12))
    assert [each["image_id"] for each in truth["annotations"]] == [3] * 2 + [7] * 9
    assert truth["images"][1] == {"id": 5, "file_name": "none.png", "height": 60, "width": 80}
    assert truth["categories"] == [{"id": 1, "name": "epithelial"}, {"id": 2, "name": "mast cell"}]


def test_boxes_and_areas_are_those_of_pycocotools_and_scores_only_of_what_was_found():
    truth = truth_of(images(), ("epithelial", "mast cell"))
    for each in truth["annotations"]:
        assert each["bbox"] == coco_mask.toBbox(each["segmentation"]).tolist()
        assert each["area"] == coco_mask.area(each["segmentation"])
        assert ("score" in each) == (each["image_id"] == 7)


def test_what_is_written_is_read_as_a_data_set(tmp_path):
    for name in ("a.png", "none.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((*SIZE, 3), np.uint8))
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(truth_of(images(), ("epithelial", "mast cell"))))
    read, names = read_coco(path)
    assert names == ("epithelial", "mast cell")
    cells = awkward_cells()
    assert [len(image.annotation.coded) for image in read] == [2, 0, 9]
    coded = read[2].annotation.coded
    assert np.array_equal(masks_of([cell.code for cell in coded]), masks_of(cells.codes))
    assert [cell.label for cell in coded] == cells.labels.tolist()
