from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from cellseg.config import PredictConfig
from cellseg.tiles import tiles

TILED = PredictConfig(zoom=1.0, tile=64, overlap=32)


@pytest.mark.parametrize("length", [65, 96, 97, 128, 200, 1000])
def test_tiles_cover_an_image_and_their_cores_too(length):
    spans = [(tile.rows, tile.core[1], tile.core[3]) for tile in tiles((length, 30), TILED)]
    assert (spans[0][0].start, spans[-1][0].stop) == (0, length)
    assert all(rows.stop - rows.start == 64 for rows, _, _ in spans)
    assert all(a.stop - b.start >= 32 for (a, _, _), (b, _, _) in pairwise(spans))
    for y in np.arange(0, length + 0.5, 0.5):
        owners = [rows for rows, low, high in spans if low <= y < high]
        assert 1 <= len(owners) <= 2
        assert all(rows.start <= y <= rows.stop for rows in owners)


def test_cores_meet_in_the_middle_of_an_overlap_and_reach_an_eighth_of_it_beyond():
    left, right = tiles((64, 96), TILED)  # 0..64 and 32..96
    assert (left.core[2], right.core[0]) == (48 + 4, 48 - 4)
    assert left.core[0] == left.core[1] == -np.inf


@pytest.mark.parametrize("size_hw", [(200, 150), (64, 300), (100, 65)])
def test_what_lies_alone_in_a_tile_no_other_tile_sees(size_hw):
    found = list(tiles(size_hw, TILED))
    for one, other in product(found, found):
        x1, y1, x2, y2 = one.alone
        if one is not other:
            assert (
                (
                    x1 >= other.columns.stop
                    or x2 <= other.columns.start
                    or y1 >= other.rows.stop
                    or y2 <= other.rows.start
                )
                or x1 > x2
                or y1 > y2
            )


def test_a_tile_is_a_window_of_image_pixels_that_the_network_sees_at_its_own_size():
    found = list(tiles((100, 200), replace(TILED, zoom=1.5)))  # 64 / 1.5 = 42.7
    assert {(tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start) for tile in found} == {(43, 43)}
    assert {tile.network_hw for tile in found} == {(64, 64)}
    image = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    assert found[3].read(image).shape == (64, 64, 3)


def test_places_in_the_image_are_places_in_the_network_s_pixels():
    tile = list(tiles((50, 75), replace(TILED, zoom=2.0)))[-1]  # 32 pixels a side at twice the size
    assert (tile.corner_xy, tile.scale_xy) == ((43, 18), (2, 2))
    x1, y1, x2, y2 = tile.core
    assert tile.network_core == [(x1 - 43) * 2, (y1 - 18) * 2, np.inf, np.inf]
    assert (x2, y2) == (np.inf, np.inf)


@pytest.mark.parametrize("size_hw", [(64, 64), (10, 64), (1, 1)])
def test_an_image_no_larger_than_a_tile_is_not_cut(size_hw):
    (only,) = tiles(size_hw, TILED)
    assert (only.rows, only.columns, only.network_hw) == (slice(0, size_hw[0]), slice(0, size_hw[1]), size_hw)
    assert only.core == only.alone == (-np.inf, -np.inf, np.inf, np.inf)


def test_without_tiles_an_image_is_seen_whole():
    (only,) = tiles((300, 500), replace(TILED, tile=0, zoom=0.5))
    assert only.network_hw == (150, 250)


def test_a_short_side_is_taken_whole_at_the_image_s_scale():
    found = list(tiles((20, 200), replace(TILED, zoom=0.5)))
    assert {tile.network_hw for tile in found} == {(10, 64)}


def test_tiles_of_few_image_pixels_still_differ():
    found = list(tiles((5, 9), PredictConfig(zoom=30.0, tile=64, overlap=60)))  # 2 pixels a side, 1 shared
    assert len(found) == 4 * 8
