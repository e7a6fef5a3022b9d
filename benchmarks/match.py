"""Claim: anchors matched to cells by where they lie, against torchvision's matrix of all anchors x all cells."""

from functools import partial

from measure import Case, main

import torch
from rows import Notes
from scenes import tissue
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from cellseg.label_maps import target
from cellseg.matching import Grid, laid_out, match

CELLS = (70, 240, 700)
SIDE = 1024
STRIDES = (4, 8, 16)
SIZES = ((10.0, 14.0, 20.0), (20.0, 28.0, 40.0), (40.0, 56.0, 80.0))
RATIOS = (0.5, 1.0, 2.0)
HIGH, LOW = 0.7, 0.3


def cases(quick: bool) -> list[Case]:
    """One image of more and more cells."""
    sizes, side = ((8,), 96) if quick else (CELLS, SIDE)
    return [case_of(cells, side) for cells in sizes]


def case_of(cells: int, side: int) -> Case:
    """The anchors of three levels, nine at each place, and the cells of one image."""
    boxes = target(tissue(cells, (side, side))[1])["boxes"]
    generator = AnchorGenerator(SIZES, (RATIOS,) * len(SIZES))
    maps = [torch.empty(1, 1, side // stride, side // stride) for stride in STRIDES]
    (anchors,) = generator(ImageList(torch.empty(1, 3, side, side), [(side, side)]), maps)
    grids = [
        Grid(shapes, (side // stride, side // stride), (stride, stride))
        for shapes, stride in zip(generator.cell_anchors, STRIDES, strict=True)
    ]
    ours, theirs = partial(match, laid_out(grids), [boxes], HIGH, LOW), partial(matched, anchors, boxes)
    needed_mb = 9.2 * boxes.itemsize * len(anchors) * len(boxes) / 1e6  # box_iou holds that many such matrices
    notes = {"anchors": len(anchors)}
    return Case(cells, ours, theirs, lambda: compared(ours()[0], theirs()), notes, theirs_needs_mb=needed_mb)


def matched(anchors: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """The cell (A,) of each anchor as torchvision's RPN finds it."""
    matches: Tensor = Matcher(HIGH, LOW, allow_low_quality_matches=True)(box_iou(boxes_xyxy, anchors))
    return matches


def compared(ours: Tensor, theirs: Tensor) -> Notes:
    """The same cell for every anchor."""
    assert torch.equal(ours, theirs), f"match: {int((ours != theirs).sum())} anchors differ"
    return {"found": int((ours >= 0).sum())}


if __name__ == "__main__":
    main("match", cases)
