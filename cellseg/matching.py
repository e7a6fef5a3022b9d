"""Anchors and cells: which anchors find which cell, and which of them a training step looks at.

Letters: A anchors of all levels, S shapes of anchors at one place, N cells, P pairs of an anchor and a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

BACKGROUND = -1
IGNORED = -2
SLACK = 1e-3
"""by which bounds are widened, so that rounding loses no pair"""


@dataclass(frozen=True)
class Grid:
    """The anchors of one level: S shapes at each place of a grid, row by row, from the origin on."""

    shapes: Tensor  # (S, 4) float32 xyxy around their place
    size_hw: tuple[int, int]
    stride_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.shapes) * self.size_hw[0] * self.size_hw[1]


def match(grids: Sequence[Grid], boxes_xyxy: Tensor, high: float = 0.7, low: float = 0.3) -> Tensor:
    """The cell (A,) int64 that each anchor is to find: an index of boxes (N, 4) float32, BACKGROUND or IGNORED.

    As torchvision's Matcher with low-quality matches has it: the cell of the highest IoU from `high` on, ignored from
    `low` on; and the anchors that fit a cell best take the cell that fits them best, whatever the IoU. Only pairs that
    can reach `low`, or be a cell's best, are looked at, so that cost grows with A + N and not with A x N; only anchors
    that are a cell's best below `low` are compared with all cells. Boxes without an area get no anchor.
    """
    anchors, cells, ious, anchor_boxes = _pairs(grids, boxes_xyxy, low)
    count = sum(map(len, grids))
    best = ious.new_zeros(count).scatter_reduce(0, anchors, ious, "amax")
    first = ious == best[anchors]  # of equal cells the first, as torch.max has it
    matches = torch.full((count,), len(boxes_xyxy), device=ious.device)
    matches.scatter_reduce_(0, anchors[first], cells[first], "amin")
    most = ious.new_zeros(len(boxes_xyxy)).scatter_reduce(0, cells, ious, "amax")
    fittest = (ious == most[cells]) & (ious > 0)
    sure = best[anchors] >= low  # of these all pairs that count are here, of the others there may be better ones
    kept, weak = anchors[fittest & sure], fittest & ~sure
    found = matches[kept]
    matches[best < high] = IGNORED
    matches[best < low] = BACKGROUND
    matches[kept] = found
    if len(boxes_xyxy):
        matches[anchors[weak]] = box_iou(boxes_xyxy, anchor_boxes[weak]).argmax(dim=0)
    return matches


def balanced(
    labels: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """A random choice of at most `count` of A candidates: indices (K,), and which of these are chosen (K,) bool.

    Labels (A,) above 0 are positive, 0 negative, others are never chosen. At most count x positive_fraction are
    positive; negatives fill up. Its shapes do not depend on the labels, so that a GPU need not wait for them.
    """
    keys = torch.rand(len(labels), generator=generator, device=labels.device)
    most = min(int(count * positive_fraction), len(labels))
    positive_keys, positive = keys.masked_fill(labels <= 0, -1).topk(most)
    negative_keys, negative = keys.masked_fill(labels != 0, -1).topk(min(count, len(labels)))
    taken = positive_keys >= 0
    room = torch.arange(len(negative), device=labels.device) < count - taken.sum()
    return torch.cat([positive, negative]), torch.cat([taken, (negative_keys >= 0) & room])


def _pairs(grids: Sequence[Grid], boxes_xyxy: Tensor, low: float) -> tuple[Tensor, ...]:
    """Anchor, cell and IoU (P,) and the anchor's box (P, 4) of all pairs that reach `low` or a cell's best IoU.

    And of some pairs more.
    """
    reached = [_iou(boxes_xyxy[:, None], _nearest(grid, boxes_xyxy)).amax(dim=1) for grid in grids]
    least = torch.stack(reached).amax(dim=0).clamp(max=low) * (1 - SLACK)  # (N,)
    found, offset = [], 0
    for grid in grids:
        cells, shapes, rows, columns = _places(grid, boxes_xyxy, least)
        anchors = offset + (rows * grid.size_hw[1] + columns) * len(grid.shapes) + shapes
        anchor_boxes = _shifted(grid, shapes, rows, columns)
        found.append((anchors, cells, _iou(boxes_xyxy[cells], anchor_boxes), anchor_boxes))
        offset += len(grid)
    return tuple(torch.cat(each) for each in zip(*found, strict=True))


def _nearest(grid: Grid, boxes_xyxy: Tensor) -> Tensor:
    """Of each shape, the anchor (N, S, 4) nearest to each cell: none of its shape has a higher IoU."""
    shapes = torch.arange(len(grid.shapes), device=boxes_xyxy.device)[None]
    columns, rows = (
        (_distance(grid, boxes_xyxy, axis) / grid.stride_hw[1 - axis])
        .round()
        .long()
        .clamp(0, grid.size_hw[1 - axis] - 1)
        for axis in (0, 1)
    )
    return _shifted(grid, shapes.expand_as(rows), rows, columns)


def _places(grid: Grid, boxes_xyxy: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cell, shape, row and column, (P,) each, of the pairs whose IoU may be `least` (N,) or more.

    An IoU of t asks for an overlap of t / (1 + t) of both areas together, and so for t / (1 + t) x areas / the lower
    height across, and the same down.
    """
    sides, shape_sides = (
        boxes_xyxy[:, None, 2:] - boxes_xyxy[:, None, :2],
        grid.shapes[None, :, 2:] - grid.shapes[None, :, :2],
    )
    shared = (least / (1 + least))[:, None] * (sides.prod(dim=-1) + shape_sides.prod(dim=-1))  # (N, S)
    lower = torch.minimum(sides, shape_sides)  # (N, S, 2)
    firsts, counts = [], []
    for axis in (0, 1):
        overlap = shared / lower[..., 1 - axis].clamp(min=1e-6)
        reach = (sides + shape_sides)[..., axis] / 2 - overlap
        reach = torch.where(overlap <= lower[..., axis] * (1 + SLACK), reach + SLACK, -1.0)
        distance, stride, limit = _distance(grid, boxes_xyxy, axis), grid.stride_hw[1 - axis], grid.size_hw[1 - axis]
        first = ((distance - reach) / stride).ceil().long().clamp(min=0)
        last = ((distance + reach) / stride).floor().long().clamp(max=limit - 1)
        firsts.append(first.flatten())
        counts.append(((last - first + 1).clamp(min=0) * (reach >= 0)).flatten())
    pairs = counts[0] * counts[1]
    owners = torch.repeat_interleave(pairs)  # (P,) numbers of a cell and a shape
    within = torch.arange(len(owners), device=owners.device) - (pairs.cumsum(0) - pairs)[owners]
    across = counts[0][owners]
    rows, columns = firsts[1][owners] + within // across, firsts[0][owners] + within % across
    return owners // len(grid.shapes), owners % len(grid.shapes), rows, columns


def _distance(grid: Grid, boxes_xyxy: Tensor, axis: int) -> Tensor:
    """From the centre of each shape at the origin to that of each cell, (N, S) pixels along x (0) or y (1)."""
    centres, shape_centres = ((each[:, axis] + each[:, axis + 2]) / 2 for each in (boxes_xyxy, grid.shapes))
    return centres[:, None] - shape_centres[None]


def _shifted(grid: Grid, shapes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Anchors (…, 4) of shapes at places (…)."""
    places = torch.stack([columns * grid.stride_hw[1], rows * grid.stride_hw[0]], dim=-1)
    return grid.shapes[shapes] + places.repeat(*[1] * rows.ndim, 2)


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """Elementwise IoU of two broadcastable tensors of xyxy boxes, rounded as torchvision's box_iou rounds it."""
    overlap = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    shared = overlap[..., 0] * overlap[..., 1]
    areas = [(each[..., 2] - each[..., 0]) * (each[..., 3] - each[..., 1]) for each in (first, second)]
    return shared / (areas[0] + areas[1] - shared)
