"""Hand-made scenes on an image of 40 x 60 pixels; a cell is (label, (x, y, width, height))."""

import numpy as np
import pytest
from test_panoptic import scene

from cellseg.confusion import Matched, confusion_of, matched_cells, recall_by_size
from cellseg.panoptic import panoptic

THREE_BY_THREE = [(0, 0, 10, 10), (20, 0, 10, 10), (40, 0, 10, 10), (0, 20, 10, 10), (20, 20, 10, 10)]


def cells(truth, results, threshold=0.5):
    """The one image's cells, given truth and (label, box, score)."""
    images, found = scene(truth, results)
    for annotation, (_, box) in zip(images["annotations"], truth, strict=True):
        annotation["bbox"] = list(box)
    (only,) = matched_cells(images, found, threshold)
    return only


def mixed():
    """Three cells of class 1: one right, one found as class 2, one missed; one of class 2, right; one false 1."""
    a, b, c, d, e = THREE_BY_THREE
    truth = [(1, a), (1, b), (1, c), (2, d)]
    return cells(truth, [(1, a, 0.9), (2, b, 0.8), (2, d, 0.7), (1, e, 0.6)])


def test_truth_is_down_and_what_was_found_across_with_missed_and_false_last():
    assert confusion_of([mixed()], 2).tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]


def test_every_truth_cell_is_counted_once_in_its_row_and_every_drawn_one_in_its_column():
    table = confusion_of([mixed(), mixed()], 2)
    assert table[:2].sum(axis=1).tolist() == [6, 2]
    assert table[:, :2].sum(axis=0).tolist() == [4, 4]


def test_an_image_counts_right_confused_missed_and_false_cells():
    image = mixed()
    assert (image.right, image.confused, image.missed, image.false) == (2, 1, 1, 1)


def test_a_cell_that_is_met_with_half_of_the_union_is_missed_and_with_more_is_found():
    # 10 x 10 and 10 x 20 share 100 of 200 pixels; 10 x 10 and 10 x 19 share 100 of 190
    half = cells([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 20), 0.9)])
    more = cells([(1, (0, 0, 10, 10))], [(2, (0, 0, 10, 19), 0.9)])
    assert (half.missed, half.false) == (1, 1)
    assert (more.confused, more.missed, more.false) == (1, 0, 0)
    assert more.ious.tolist() == [pytest.approx(100 / 190)]


def test_results_under_the_threshold_are_not_drawn():
    image = cells([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 10), 0.4)])
    assert (image.missed, image.false) == (1, 0)


def test_two_truth_cells_on_one_drawn_cell_share_it_not():
    """The better fit has it, though the other is of the drawn cell's class."""
    image = cells([(2, (0, 0, 10, 10)), (1, (0, 0, 10, 9))], [(1, (0, 0, 10, 10), 0.9)])
    assert image.found_as.tolist() == [1, 0]
    assert (image.confused, image.missed, image.false) == (1, 1, 0)


def test_nothing_at_all_is_an_empty_table():
    image = cells([], [])
    assert not confusion_of([image], 3).any()
    assert confusion_of([], 3).shape == (4, 4)
    assert recall_by_size([image], 3) == recall_by_size([], 3) == []


def test_pq_of_an_image_is_that_of_its_cells_pooled():
    """One cell is found with an IoU of .7, one is missed, and one is false: .7 / (1 + .5 + .5)."""
    a, b, _, d, _ = THREE_BY_THREE
    image = cells([(1, a), (2, b)], [(1, (0, 0, 10, 7), 0.9), (1, d, 0.8)])
    assert image.pq == pytest.approx(0.7 / 2)


def test_pq_of_an_image_of_one_class_is_the_panoptic_quality():
    a, b, c, *_ = THREE_BY_THREE
    truth, results = [(1, a), (1, b)], [(1, (2, 0, 10, 10), 0.9), (1, c, 0.8)]
    assert cells(truth, results).pq == pytest.approx(panoptic(*scene(truth, results)).pq[1])


def test_a_cell_of_another_class_counts_twice_against_an_image():
    a, b, *_ = THREE_BY_THREE
    assert cells([(1, a), (1, b)], [(1, a, 0.9), (2, b, 0.9)]).pq == pytest.approx(1 / 2)


def test_an_image_without_cells_is_perfect_where_none_is_drawn_and_worthless_where_one_is():
    assert cells([], []).pq == 1.0
    assert cells([], [(1, (0, 0, 9, 9), 0.9)]).pq == 0.0


def sized(sides, found_as, label=1):
    count = len(sides)
    labels = np.full(count, label, np.int64)
    return Matched(labels, np.array(sides, float), np.empty(0, np.int64), np.array(found_as, np.int64), np.zeros(count))


def test_recall_is_counted_by_size_and_class_in_bins_that_have_cells():
    first, second = sized([4, 5, 10, 20], [1, 0, 2, 1]), sized([10, 30], [2, 0], label=2)
    small, large, huge = recall_by_size([first, second], 2, edges=(0, 10, 21, 25, 100))
    assert ((small.low, small.high), (huge.low, huge.high)) == ((0, 10), (25, 100))
    assert (small.cells.tolist(), small.found.tolist(), small.right.tolist()) == ([2, 0], [1, 0], [1, 0])
    assert (large.cells.tolist(), large.found.tolist(), large.right.tolist()) == ([2, 1], [2, 1], [1, 1])
    assert (huge.cells.tolist(), huge.found.tolist(), huge.right.tolist()) == ([0, 1], [0, 0], [0, 0])


def test_the_side_of_a_cell_is_that_of_a_square_as_large_as_its_box():
    image = cells([(1, (0, 0, 8, 18))], [])
    assert image.truth_sides.tolist() == [12.0]
    (only,) = recall_by_size([image], 1)
    assert (only.low, only.high) == (12.0, 16.0)


def test_a_cell_of_any_size_has_a_bin():
    bins = recall_by_size([sized([0.5, 5000.0], [1, 1])], 1)
    assert [(each.low, each.high) for each in bins] == [(0.0, 8.0), (128.0, np.inf)]
