from dataclasses import replace

import pytest
import torch

from cellseg.views import VIEWS, View

SIZE_HW = (10, 20)
BOX = torch.tensor([1.0, 2.0, 4.0, 3.0])


def lit(box, size_hw=SIZE_HW):
    """An image (3, h, w) that is lit in a box."""
    image = torch.zeros(3, *size_hw, dtype=torch.uint8)
    x1, y1, x2, y2 = box.int().tolist()
    image[:, y1:y2, x1:x2] = 200
    return image


def lit_box(image):
    rows, columns = (image[0] > 100).nonzero(as_tuple=True)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


def test_all_views_differ_and_the_first_shows_the_tile_as_it_is():
    noise = torch.arange(4).reshape(2, 2)
    assert len({tuple(view.of(noise[None])[0].flatten().tolist()) for view in VIEWS}) == 8
    assert VIEWS[0] == View()


def test_a_quarter_turn_moves_a_box_to_where_torch_moves_its_pixels():
    turn = View(transposed=True, up_down=True)
    assert turn.size_of(SIZE_HW) == (20, 10)
    assert turn.boxes(BOX, SIZE_HW).tolist() == [2, 16, 3, 19]  # x = y, y = 20 - x
    assert torch.equal(turn.of(lit(BOX)), torch.rot90(lit(BOX), 1, (1, 2)))


@pytest.mark.parametrize("zoom", [1.0, 2.0])
@pytest.mark.parametrize("view", VIEWS)
def test_boxes_are_where_a_view_shows_what_they_hold(view, zoom):
    view = replace(view, zoom=zoom)
    shown = view.of(lit(BOX))
    assert tuple(shown.shape[1:]) == view.size_of(SIZE_HW)
    assert view.boxes(BOX, SIZE_HW).tolist() == lit_box(shown)


@pytest.mark.parametrize("zoom", [1.0, 0.77])
@pytest.mark.parametrize("view", VIEWS)
def test_boxes_come_back_to_where_they_were(view, zoom):
    boxes = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0)) * 10
    view = replace(view, zoom=zoom)
    assert torch.allclose(view.boxes_back(view.boxes(boxes, SIZE_HW), SIZE_HW), boxes, atol=1e-5)
    assert view.boxes(boxes[:0], SIZE_HW).shape == (0, 5, 4)


def test_a_box_seen_at_zoom_2_is_half_as_large_on_the_tile():
    assert View(zoom=2.0).boxes_back(2 * BOX, SIZE_HW).tolist() == BOX.tolist()
    assert View(zoom=2.0).size_of(SIZE_HW) == (20, 40)


def test_a_size_that_a_zoom_rounds_moves_boxes_by_what_it_has_become():
    view = View(zoom=0.25)
    assert view.size_of((10, 10)) == (2, 2)  # 2.5
    assert view.boxes(torch.tensor([0.0, 0.0, 10.0, 10.0]), (10, 10)).tolist() == pytest.approx([0, 0, 2, 2])


def test_a_mask_is_turned_back():
    corner = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert View(left_right=True).masks_back(corner).tolist() == [[[2, 1], [4, 3]]]
    assert View(up_down=True).masks_back(corner).tolist() == [[[3, 4], [1, 2]]]
    assert View(transposed=True).masks_back(corner).tolist() == [[[1, 3], [2, 4]]]
    # shown: transposed, then mirrored, so [[3, 1], [4, 2]] was [[1, 2], [3, 4]]
    shown = torch.tensor([[[3.0, 1.0], [4.0, 2.0]]])
    assert View(transposed=True, left_right=True).masks_back(shown).tolist() == corner.tolist()


@pytest.mark.parametrize("view", VIEWS)
def test_masks_come_back_as_the_tile_shows_them(view):
    masks = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(view.masks_back(view.of(masks)), masks)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_an_image_and_its_mirror_image_are_seen_in_the_same_views(count):
    image = torch.arange(9).reshape(1, 3, 3)
    looks = {tuple(view.of(image).flatten().tolist()) for view in VIEWS[:count]}
    for turned in VIEWS[:count]:
        assert {tuple(view.of(turned.of(image)).flatten().tolist()) for view in VIEWS[:count]} == looks


def test_a_resized_view_has_the_mean_of_the_tile():
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for zoom in (0.5, 1.25):
        assert View(zoom=zoom).of(image).mean().item() == pytest.approx(image.float().mean().item(), abs=1.5)
