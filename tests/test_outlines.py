"""Outlines hold exactly the pixels that they were drawn around, and shapely finds nothing wrong with them."""

import time
from itertools import product

import numpy as np
import pytest
from made_cells import disc
from shapely import contains_xy
from shapely.geometry import MultiPolygon, Polygon
from shapely.validation import explain_validity

from cellseg.outlines import FARTHEST, outlines_of, window_of

HOLE = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
SHAPES = {
    "a pixel": ([[1]], [1]),
    "a hole": (HOLE, [2]),
    "two that meet in a corner": ([[1, 0], [0, 1]], [1, 1]),
    "two apart": ([[1, 0, 1]], [1, 1]),
    "a bay that a corner closes": ([[1, 1, 1], [1, 0, 1], [1, 1, 0]], [2]),
    "holes that meet in a corner": ([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], [3]),
    "a pixel in a hole": (np.pad(np.pad([[1]], 1), 1, constant_values=1), [2, 1]),
    "an island of holes in a ring": (np.pad([[1, 0, 1], [0, 1, 0], [1, 0, 1]], 1, constant_values=1), [2, 1]),
    "nothing": ([[0, 0]], []),
}


def polygon_of(parts):
    return MultiPolygon([Polygon(part[0], part[1:]) for part in parts])


def filled(rings, size_hw=(40, 40)):
    """The image (H, W) bool in which the window lies."""
    (x, y), window = window_of([np.array(ring, float).reshape(-1, 2) for ring in rings], size_hw)
    image = np.zeros(size_hw, bool)
    image[y : y + window.shape[0], x : x + window.shape[1]] = window
    return image


def assert_exact(mask):
    parts = outlines_of(mask, (3, 4))
    polygon = polygon_of(parts)
    assert polygon.is_valid, explain_validity(polygon)
    assert polygon.area == mask.sum()
    assert all(Polygon(part[0]).exterior.is_ccw for part in parts)  # clockwise where y goes down
    assert all(not Polygon(hole).exterior.is_ccw for part in parts for hole in part[1:])
    expected = np.zeros((40, 40), bool)
    expected[4 : 4 + mask.shape[0], 3 : 3 + mask.shape[1]] = mask
    assert np.array_equal(filled([ring for part in parts for ring in part]), expected)


@pytest.mark.parametrize("name", SHAPES)
def test_a_part_is_its_exterior_and_its_holes(name):
    mask, rings = SHAPES[name]
    mask = np.array(mask, bool)
    assert [len(part) for part in outlines_of(mask)] == rings
    assert_exact(mask)


def test_all_masks_of_nine_pixels_and_many_larger_ones_are_held_exactly():
    for bits in product((False, True), repeat=9):
        assert_exact(np.array(bits).reshape(3, 3))
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert_exact(rng.random(rng.integers(1, 14, 2)) < rng.random())


def test_corners_are_given_where_a_line_turns_and_nowhere_else():
    tee = np.array([[1, 1, 1], [0, 1, 0]], bool)
    assert outlines_of(tee, (10, 20)) == [
        [[(10, 20), (13, 20), (13, 21), (12, 21), (12, 22), (11, 22), (11, 21), (10, 21)]]
    ]


def test_a_nucleus_takes_less_than_a_millisecond():
    mask = disc(12.2)
    outlines_of(mask)
    fastest = min(_seconds(mask) for _ in range(50))
    assert fastest < 0.001


def _seconds(mask):
    begin = time.perf_counter()
    outlines_of(mask)
    return time.perf_counter() - begin


def test_a_pixel_belongs_to_a_line_round_its_centre():
    inside = filled([[(1.4, 1.4), (3.6, 1.4), (3.6, 2.6), (1.4, 2.6)]])
    assert np.argwhere(inside).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]
    assert not filled([[(1.6, 1.6), (2.4, 1.6), (2.4, 2.4), (1.6, 2.4)]]).any()  # between the centres


def test_areas_that_share_a_line_through_centres_share_no_pixel_and_leave_none():
    low, high = filled([[(2, 2), (9, 2), (2, 9)]]), filled([[(9, 9), (9, 2), (2, 9)]])
    assert not (low & high).any()
    assert (low | high).sum() == 49
    left, right = filled([[(2, 2), (5.5, 2), (5.5, 4), (2, 4)]]), filled([[(5.5, 2), (9, 2), (9, 4), (5.5, 4)]])
    assert not (left & right).any()
    assert (left | right).sum() == 14
    assert left.sum() == 8  # the centres at 5.5 are left of the line


def test_a_large_polygon_agrees_with_shapely():
    rng = np.random.default_rng(1)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 30))
    corners = 20 + rng.uniform(6, 19, 30)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ys, xs = np.mgrid[:40, :40] + 0.5
    assert np.array_equal(filled([corners]), contains_xy(Polygon(corners), xs, ys))


def test_what_lies_outside_the_image_is_cut_off():
    assert filled([[(-5, -5), (2, -5), (2, 3), (-5, 3)]]).sum() == 6
    assert filled([[(38, 39), (90, 39), (90, 70), (38, 70)]]).sum() == 2
    assert not filled([[(50, 50), (60, 50), (60, 60)]]).any()
    assert not filled([]).any()
    assert not filled([[]], (3, 3)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, FARTHEST])
def test_corners_that_are_nowhere_are_refused(bad):
    with pytest.raises(ValueError, match="expected corners within 10000000 pixels"):
        window_of([np.array([(0, 0), (bad, 1), (1, 1)])], (5, 5))
