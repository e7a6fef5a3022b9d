import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from cellseg import matching
from cellseg.matching import BACKGROUND, IGNORED, Grid, balanced, keys_of, laid_out, match


def anchors_of(side, sizes, ratios, levels):
    """Grids, and torchvision's anchors in its order."""
    generator = AnchorGenerator(sizes, (ratios,) * levels)
    maps = [torch.zeros(1, 1, side // stride, side // stride) for stride in (4, 8, 16)[:levels]]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, side, side), [(side, side)]), maps)
    grids = [
        Grid(shapes, tuple(each.shape[-2:]), (side // each.shape[-2], side // each.shape[-1]))
        for shapes, each in zip(generator.cell_anchors, maps, strict=True)
    ]
    return laid_out(grids), anchors


def boxes_of_cells(count, side, seed, whole=False):
    """Boxes with sides of about 6 to 100 pixels, some over each other, some cut by the border."""
    rng = np.random.default_rng(seed)
    centres, sides = rng.uniform(0, side, (count, 2)), np.exp(rng.normal(3.2, 0.8, (count, 2)))
    boxes = torch.tensor(np.hstack([centres - sides / 2, centres + sides / 2]).clip(0, side), dtype=torch.float32)
    boxes = boxes.round() if whole else boxes
    return boxes[((boxes[:, 2:] - boxes[:, :2]) > 0.5).all(dim=1)]


def of_torchvision(boxes, anchors):
    return Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(boxes, anchors))


SMALL = ((10.0, 14.0, 20.0), (20.0, 28.0, 40.0), (40.0, 56.0, 80.0))
LARGE = ((32.0,), (64.0,), (128.0,))


@pytest.mark.parametrize("sizes", [SMALL, LARGE])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("count", "side"), [(1, 64), (30, 256), (200, 256)])
def test_the_matches_are_those_of_torchvision_s_full_matrix(sizes, whole, count, side):
    grids, anchors = anchors_of(side, sizes, (0.5, 1.0, 2.0), 3)
    for seed in range(3):
        boxes = boxes_of_cells(count, side, seed, whole)
        assert torch.equal(match(grids, [boxes])[0], of_torchvision(boxes, anchors))


@pytest.mark.parametrize("sizes", [SMALL, LARGE])
@pytest.mark.parametrize("at_once", [matching.COMPARED_AT_ONCE, 100])
def test_images_are_matched_each_by_itself(monkeypatch, sizes, at_once):
    monkeypatch.setattr(matching, "COMPARED_AT_ONCE", at_once)
    grids, anchors = anchors_of(128, sizes, (0.5, 1.0), 3)
    boxes = [boxes_of_cells(count, 128, seed) for seed, count in enumerate((20, 0, 3, 40))]
    offset = 0
    for found, own in zip(match(grids, boxes), boxes, strict=True):
        expected = of_torchvision(own, anchors) if len(own) else torch.full((len(anchors),), BACKGROUND)
        assert torch.equal(found, torch.where(expected >= 0, expected + offset, expected))
        offset += len(own)


def test_of_two_equal_cells_the_first_is_matched():
    grids, anchors = anchors_of(64, SMALL, (1.0,), 3)
    boxes = torch.tensor([[20.0, 20.0, 30.0, 30.0]] * 2)
    found = match(grids, [boxes])[0]
    assert torch.equal(found, of_torchvision(boxes, anchors))
    assert set(found.tolist()) == {0, IGNORED, BACKGROUND}


@pytest.mark.parametrize(
    "box", [[0.0, 0.0, 1.0, 1.0], [63.0, 63.0, 64.0, 64.0], [0.0, 0.0, 64.0, 64.0], [30, 0, 31, 64]]
)
def test_the_smallest_and_the_largest_cell_get_an_anchor(box):
    grids, anchors = anchors_of(64, SMALL, (0.5, 1.0, 2.0), 3)
    boxes = torch.tensor([box], dtype=torch.float32)
    found = match(grids, [boxes])[0]
    assert torch.equal(found, of_torchvision(boxes, anchors))
    assert (found == 0).any()


def test_without_a_cell_all_is_background():
    grids, anchors = anchors_of(64, SMALL, (1.0,), 3)
    assert match(grids, [torch.empty(0, 4)])[0].tolist() == [BACKGROUND] * len(anchors)


def test_a_box_without_an_area_gets_no_anchor():
    """torchvision matches it with every anchor that overlaps no cell."""
    grids, _ = anchors_of(64, SMALL, (1.0,), 3)
    assert (match(grids, [torch.tensor([[10.0, 10.0, 10.0, 20.0]])]) == BACKGROUND).all()


def chosen_of(labels, count, fraction, seed=0):
    keys = keys_of([torch.Generator().manual_seed(seed)], [len(labels)], torch.device("cpu"))
    looked_at, chosen = balanced(torch.tensor([labels]), keys, count, fraction)
    return looked_at[chosen].tolist()


def test_a_choice_is_balanced_and_filled_up_with_negatives():
    labels = [1] * 5 + [-1] * 5 + [0] * 90
    chosen = chosen_of(labels, 20, 0.5)
    assert len(set(chosen)) == 20
    assert sum(k < 5 for k in chosen) == 5
    assert not {5, 6, 7, 8, 9} & set(chosen)
    many = chosen_of([2] * 50 + [0] * 50, 20, 0.25)
    assert sum(k < 50 for k in many) == 5


@pytest.mark.parametrize(("labels", "expected"), [([], []), ([-1, -1], []), ([3], [0]), ([0, 1, 0], [0, 1, 2])])
def test_few_candidates_are_all_chosen(labels, expected):
    assert sorted(chosen_of(labels, 8, 0.5)) == expected


def test_a_choice_follows_from_its_generator_and_is_fair():
    labels = [1] * 40 + [0] * 40
    assert chosen_of(labels, 10, 0.5, seed=1) == chosen_of(labels, 10, 0.5, seed=1)
    times = np.bincount(np.concatenate([chosen_of(labels, 10, 0.5, seed) for seed in range(400)]), minlength=80)
    assert times[:40].sum() == times[40:].sum() == 2000
    assert (np.abs(times - 50) < 30).all()
