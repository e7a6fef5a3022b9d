import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from cellseg.codes import decode, encode, nonempty, windows_of
from cellseg.label_maps import areas_by_id, areas_of, boxes_of, codes_of, ids_of, paint, target, without_slivers

small_maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: arrays(np.int32, size, elements=st.sampled_from([0, 0, 1, 2, 300, 70_000]))
)


def two_cells():
    label_map = np.zeros((5, 7), np.int32)
    label_map[0, 0] = 300  # one pixel, in the corner
    label_map[2:5, 4:7] = 5  # touches two borders
    return label_map


def test_ids_boxes_and_areas_come_in_order_of_id():
    assert ids_of(two_cells()).tolist() == [5, 300]
    assert areas_of(two_cells()).tolist() == [9, 1]
    assert boxes_of(two_cells()).tolist() == [[4, 2, 7, 5], [0, 0, 1, 1]]


def test_an_empty_map_flows_through():
    empty = np.zeros((4, 3), np.int32)
    assert ids_of(empty).shape == (0,)
    assert boxes_of(empty).shape == (0, 4)
    assert codes_of(empty) == []
    assert target(empty[None])["boxes"].shape == (0, 4)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(small_maps)
def test_codes_equal_those_of_pycocotools(label_map):
    for k, code in zip(ids_of(label_map), codes_of(label_map), strict=True):
        dense = coco_mask.encode(np.asfortranarray(label_map == k, dtype=np.uint8))
        assert code == {"size": list(label_map.shape), "counts": dense["counts"].decode()}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(small_maps)
def test_ids_areas_and_boxes_equal_those_of_dense_masks(label_map):
    ids = np.unique(label_map[label_map > 0])
    masks = [label_map == k for k in ids]
    assert ids_of(label_map).tolist() == ids.tolist()
    assert areas_of(label_map).tolist() == [mask.sum() for mask in masks]
    edges = [(mask.any(0).nonzero()[0], mask.any(1).nonzero()[0]) for mask in masks]
    assert boxes_of(label_map).tolist() == [[x[0], y[0], x[-1] + 1, y[-1] + 1] for x, y in edges]


def test_a_window_without_a_pixel_has_an_empty_code():
    (code,) = encode([np.zeros((2, 2), bool)], np.array([[1, 1]]), (4, 5))
    assert decode(code).sum() == 0
    assert nonempty([code]).tolist() == [False]
    assert nonempty([]).shape == (0,)


def test_a_slide_of_more_pixels_than_32_bits_count_is_coded():
    windows, corners = [np.eye(3, dtype=bool), np.ones((4, 6), bool)], [(10, 20), (99_000, 98_000)]
    codes = encode([*windows, np.zeros((2, 2), bool)], np.array([*corners, (5, 5)]), (100_000, 100_000))
    assert nonempty(codes).tolist() == [True, True, False]
    for (corner, window), own_corner, own in zip(windows_of(codes), corners, windows, strict=False):
        assert corner == own_corner
        assert (window == own).all()


def test_a_target_names_each_cell_by_class_and_id():
    label_maps = np.stack([two_cells(), np.zeros((5, 7), np.int32)])
    label_maps[1, 1, 1:3] = 8
    cells = target(label_maps)
    assert cells["labels"].tolist() == [1, 1, 2]
    assert cells["ids"].tolist() == [5, 300, 8]
    sizes = [int((cells["label_maps"][k - 1] == i).sum()) for k, i in zip(cells["labels"], cells["ids"], strict=True)]
    assert sizes == [9, 1, 2]


def test_cells_under_the_minimum_area_are_no_targets():
    assert target(two_cells()[None], minimum_area=2)["ids"].tolist() == [5]


def test_ids_above_255_and_above_65535_survive():
    label_map = np.zeros((1, 3, 3), np.int32)
    label_map[0, 0, 0], label_map[0, 2, 2] = 256, 70_000
    assert target(label_map)["ids"].tolist() == [256, 70_000]


def test_of_two_painted_cells_the_later_wins():
    codes = [
        encode([np.ones((2, 2), bool)], np.array([[0, 0]]), (3, 3))[0],
        encode([np.ones((1, 3), bool)], np.array([[0, 1]]), (3, 3))[0],
    ]
    painted = paint(codes, [2, 2], 2, (3, 3))
    assert painted[0].sum() == 0
    assert painted[1].tolist() == [[1, 1, 0], [2, 2, 2], [0, 0, 0]]


@pytest.mark.parametrize("columns", [slice(0, 1), slice(2, 3), slice(0, 3)])
def test_full_columns_join_into_one_run(columns):
    label_map = np.zeros((4, 3), np.int32)
    label_map[:, columns] = 1
    (code,) = codes_of(label_map)
    assert code["counts"] == coco_mask.encode(np.asfortranarray(label_map.astype(np.uint8)))["counts"].decode()


def test_cells_that_show_too_little_of_themselves_are_ignored():
    label_maps = np.zeros((2, 12, 12), np.int32)
    label_maps[0, :10, 2:6] = 3  # 40 pixels, of which the window shows 8
    label_maps[1, 6:10, 6:12] = 70_000  # 24 pixels, of which it shows 16
    whole = areas_by_id(label_maps)
    assert whole == {3: 40, 70_000: 24}
    window = label_maps[:, 8:, :10].copy()
    window[1, 2:, 0] = 70_001  # pasted
    cells = without_slivers(target(window), whole, 0.3)
    assert cells["ids"].tolist() == [70_000, 70_001]
    assert cells["labels"].tolist() == [2, 2]
    assert cells["boxes"].tolist() == [[6, 0, 10, 2], [0, 2, 1, 4]]
    assert cells["ignored"].tolist() == [[2, 0, 6, 2]]
    assert len(without_slivers(target(window), whole, 0.2)["ignored"]) == 0  # 8 of 40 is not less than .2
    assert len(without_slivers(target(window), whole, 0.5)["ids"]) == 1
