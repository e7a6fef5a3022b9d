"""Cells of an image: numbers, label map and results agree."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cellseg.cells import Cells, cells_of
from cellseg.codes import encode

SIZE = (30, 40)


def result(x, y, height, width, label, score):
    """A rectangle as a result."""
    (code,) = encode([np.ones((height, width), bool)], np.array([[x, y]]), SIZE)
    return {"image_id": 5, "category_id": label, "bbox": [x, y, width, height], "score": score, "segmentation": code}


@pytest.fixture(name="cells")
def three_cells():
    """Two cells of class b and one of class a, the last the surest."""
    found = [result(0, 0, 4, 5, 2, 0.6), result(30, 20, 10, 10, 2, 0.7), result(8, 3, 2, 6, 1, 0.9)]
    return cells_of(found, SIZE, ("a", "b"), 0.25)


def test_cells_are_counted_from_the_surest(cells):
    assert cells.names == ["a", "b", "b"]
    assert cells.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert cells.of_classes() == {"a": 1, "b": 2}


def test_the_label_map_has_each_cell_under_its_number(cells):
    label_map = cells.to_label_map()
    assert label_map.shape == SIZE
    assert np.bincount(label_map.ravel()).tolist() == [30 * 40 - 12 - 100 - 20, 12, 100, 20]
    for number, code in enumerate(cells.codes, start=1):
        assert np.array_equal(label_map == number, coco_mask.decode(code))


def test_results_are_those_that_made_the_cells(cells):
    again = cells_of(cells.to_results(5), SIZE, cells.class_names)
    assert cells.to_results(5)[2]["bbox"] == [0, 0, 5, 4]
    assert again.codes == cells.codes
    assert again.labels.tolist() == [1, 2, 2]


def test_an_image_without_cells_has_an_empty_label_map():
    cells = cells_of([], SIZE, ("a", "b"))
    assert len(cells) == 0
    assert not cells.to_label_map().any()
    assert cells.to_results() == []
    assert cells.of_classes() == {"a": 0, "b": 0}


def test_cells_are_not_compared_by_their_arrays(cells):
    assert cells != Cells(SIZE, cells.codes, cells.labels, cells.scores, cells.class_names)


def test_boxes_are_half_open_and_tight(cells):
    assert cells.boxes().tolist() == [[8, 3, 14, 5], [30, 20, 40, 30], [0, 0, 5, 4]]
    assert cells_of([], SIZE, ("a", "b")).boxes().shape == (0, 4)
