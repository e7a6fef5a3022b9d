from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from cellseg.config import PredictConfig
from cellseg.model import build_model
from cellseg.resampling import network_size, resized
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


@pytest.mark.parametrize("zoom", [1.5, 1.88, 0.6])
def test_a_tile_has_the_pixels_that_the_whole_would_have_there(zoom):
    image = np.random.default_rng(0).integers(0, 256, (130, 200, 3), dtype=np.uint8)
    whole = resized(image, network_size((130, 200), zoom)).astype(int)
    found = list(tiles((130, 200), replace(TILED, zoom=zoom), stride=16))
    assert len(found) > 3
    for tile in found:
        pixels = tile.read(image).astype(int)
        assert pixels.shape[:2] == tile.network_hw
        assert np.abs(pixels - whole[tile.rows, tile.columns]).max() <= 1


@pytest.mark.parametrize("length", [65, 97, 250, 1000, 4099])
@pytest.mark.parametrize("stride", [8, 16])
def test_tiles_begin_at_strides_and_overlap_enough_all_the_same(length, stride):
    spans = [tile.rows for tile in tiles((length, 30), TILED, stride)]
    assert (spans[0].start, spans[-1].stop) == (0, length)
    assert all(rows.start % stride == 0 for rows in spans)
    assert {rows.stop - rows.start for rows in spans[:-1]} == {64}
    assert all(one.stop - other.start >= 32 for one, other in pairwise(spans))
    assert len(spans) <= 2 + (length - 32) / (64 - 32 - stride + 1)


def test_a_network_sees_in_a_tile_what_it_sees_in_the_whole(micro):
    """Away from the tile's border, where it sees nothing beyond."""
    torch.manual_seed(0)
    model = build_model(micro).eval()
    image = np.random.default_rng(0).integers(0, 256, (150, 160, 3), dtype=np.uint8)
    config = PredictConfig(zoom=1.4, tile=128, overlap=64)
    found = [tile for tile in tiles(image.shape[:2], config, micro.coarsest_stride) if tile.rows.start > 0]
    tile = found[1]
    assert tile.columns.start > 0
    with torch.inference_mode():
        (whole, here) = (
            model.backbone(model.transform([torch.from_numpy(pixels.copy()).permute(2, 0, 1)])[0].tensors)["0"]
            for pixels in (resized(image, tile.whole_hw), tile.read(image))
        )
    top, left = tile.rows.start // 4, tile.columns.start // 4
    there = whole[:, :, top + 14 : top + 18, left + 14 : left + 18]
    assert torch.allclose(there, here[:, :, 14:18, 14:18], atol=0.02 * there.abs().max().item())
    beside = whole[:, :, top + 15 : top + 19, left + 14 : left + 18]
    assert not torch.allclose(beside, here[:, :, 14:18, 14:18], atol=0.02 * there.abs().max().item())


def test_places_in_the_image_are_places_in_the_network_s_pixels():
    tile = list(tiles((50, 75), replace(TILED, zoom=2.0)))[-1]  # 100 x 150: rows 36.., columns 86..
    assert (tile.corner_xy, tile.scale_xy) == ((86, 36), (2, 2))
    x1, y1, x2, y2 = tile.core
    assert tile.network_core == [x1 * 2 - 86, y1 * 2 - 36, np.inf, np.inf]
    assert (x2, y2) == (np.inf, np.inf)


def test_a_tile_does_not_see_what_goes_on_beyond_its_borders_but_for_those_of_the_image():
    left, right = tiles((32, 48), replace(TILED, zoom=2.0))  # 0..64 and 32..96 of 96 network pixels
    assert left.inside == (-np.inf, -np.inf, 31.5, np.inf)
    assert right.inside == (16.5, -np.inf, np.inf, np.inf)


@pytest.mark.parametrize("size_hw", [(64, 64), (10, 64), (1, 1)])
def test_an_image_no_larger_than_a_tile_is_not_cut(size_hw):
    (only,) = tiles(size_hw, TILED)
    assert (only.rows, only.columns, only.network_hw) == (slice(0, size_hw[0]), slice(0, size_hw[1]), size_hw)
    assert only.network_hw == only.whole_hw == only.image_hw
    assert only.core == only.alone == (-np.inf, -np.inf, np.inf, np.inf)


def test_without_tiles_an_image_is_seen_whole():
    (only,) = tiles((300, 500), replace(TILED, tile=0, zoom=0.5))
    assert only.network_hw == (150, 250)


def test_a_short_side_is_taken_whole_at_the_image_s_scale():
    found = list(tiles((20, 200), replace(TILED, zoom=0.5)))
    assert {tile.network_hw for tile in found} == {(10, 64)}


def test_strides_of_more_than_half_a_step_are_not_kept():
    spans = [tile.rows for tile in tiles((200, 30), TILED, stride=40)]
    assert [rows.start for rows in spans] == [0, 28, 55, 82, 109, 136]


@pytest.mark.parametrize(("tile", "overlap"), [(1024, 128), (200, 100), (0, 0)])
def test_a_config_that_saw_no_plan_shares_128_pixels_or_half_a_tile(tile, overlap):
    config = PredictConfig(zoom=1.0, tile=tile)
    assert list(tiles((1500, 700), config)) == list(tiles((1500, 700), replace(config, overlap=overlap)))
