"""Anchors and cells: which anchors find which cell, and which of them a training step looks at.

All images of a batch and all levels at once: on a GPU, starting an operation takes longer than doing it.
Letters: B images, A anchors of an image, S shapes of anchors of all levels, N cells of all images, P pairs of an anchor
and a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

BACKGROUND = -1
IGNORED = -2
HIGH, LOW = 0.7, 0.3
"""IoU of an anchor with a cell, from which it is to find it, and below which it is background"""
SLACK = 1e-3
"""by which bounds are widened, so that rounding loses no pair"""
COMPARED_AT_ONCE = 2**20
"""pairs of an anchor and a cell; some 100 MB"""


@dataclass(frozen=True)
class Grid:
    """The anchors of one level: its shapes at each place of a grid, row by row, from the origin on."""

    shapes: Tensor  # (…, 4) float32 xyxy around their place
    size_hw: tuple[int, int]
    stride_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.shapes) * self.size_hw[0] * self.size_hw[1]


class Grids(NamedTuple):
    """The shapes of all levels, those of the first one first."""

    shapes: Tensor  # (S, 4) float32 xyxy around their place
    sizes_xy: Tensor  # (S, 2) int64 places of each shape's level
    strides_xy: Tensor  # (S, 2) float32
    first: Tensor  # (S,) int64 the anchor of each shape at its level's origin
    steps: Tensor  # (S,) int64 anchors from one place to the next, as many as the level has shapes
    anchors: int  # A


def laid_out(grids: Sequence[Grid]) -> Grids:
    """The grids of all levels as one."""
    device = grids[0].shapes.device
    counts = torch.tensor([len(grid.shapes) for grid in grids])
    starts = torch.tensor([0, *map(len, grids)]).cumsum(0)

    def of_each(values: Sequence[Sequence[int]] | Tensor) -> Tensor:
        return torch.as_tensor(values).repeat_interleave(counts, dim=0).to(device)

    return Grids(
        shapes=torch.cat([grid.shapes for grid in grids]),
        sizes_xy=of_each([grid.size_hw[::-1] for grid in grids]),
        strides_xy=of_each([grid.stride_hw[::-1] for grid in grids]).float(),
        first=of_each(starts[:-1]) + torch.cat([torch.arange(len(grid.shapes), device=device) for grid in grids]),
        steps=of_each(counts),
        anchors=sum(map(len, grids)),
    )


def match(grids: Grids, boxes_xyxy: Sequence[Tensor], high: float = HIGH, low: float = LOW) -> Tensor:
    """The cell (B, A) int64 that each anchor is to find, BACKGROUND or IGNORED.

    A cell is an index into the boxes (…, 4) float32 of all images, concatenated. As torchvision's Matcher with
    low-quality matches has it: the cell of the highest IoU from `high` on, ignored from `low` on; and the anchors
    that fit a cell best take the cell that fits them best, whatever the IoU. Only pairs that can reach `low`, or be a
    cell's best, are looked at, so that cost grows with A + N and not with A x N; only anchors that are a cell's best
    below `low` are compared with all cells of their image: many, where anchors are far larger than cells. Boxes
    without an area get no anchor.
    """
    cells_xyxy, images = torch.cat(list(boxes_xyxy)), image_of(boxes_xyxy)
    anchors, cells, ious, anchor_boxes = _pairs(grids, cells_xyxy, low)
    anchors = anchors + images[cells] * grids.anchors
    nothing = ious.new_zeros(len(boxes_xyxy) * grids.anchors)
    best = nothing.scatter_reduce(0, anchors, ious, "amax")
    best_here = best[anchors]
    first = torch.where(ious == best_here, cells, len(cells_xyxy))  # of equal cells the first, as torch.max has it
    matches = torch.full_like(nothing, len(cells_xyxy), dtype=torch.int64).scatter_reduce(0, anchors, first, "amin")
    most = ious.new_zeros(len(cells_xyxy)).scatter_reduce(0, cells, ious, "amax")
    fittest = (ious == most[cells]) & (ious > 0)
    sure = best_here >= low  # of these all pairs that count are here, of the others there may be better ones
    kept = nothing.scatter_reduce(0, anchors, (fittest & sure).float(), "amax") > 0
    others = torch.where(best >= low, IGNORED, BACKGROUND)
    matches = torch.where(kept | (best >= high), matches, others)
    if len(cells_xyxy):
        (weak,) = (fittest & ~sure).nonzero(as_tuple=True)
        numbers, places = torch.unique(anchors[weak], return_inverse=True)  # small cells share them by the hundred
        pairs = torch.empty_like(numbers).scatter_(0, places, weak)
        padded = pad_sequence(list(boxes_xyxy), batch_first=True)  # (B, cells of an image, 4)
        for part in torch.split(pairs, max(1, COMPARED_AT_ONCE // padded.shape[1])):
            own = images[cells[part]]
            strongest = iou_of(padded[own], anchor_boxes[part, None]).argmax(dim=1)
            matches[anchors[part]] = torch.searchsorted(images, own) + strongest
    return matches.view(len(boxes_xyxy), grids.anchors)


def image_of(values: Sequence[Tensor]) -> Tensor:
    """The image (…,) int64 that each row of the values of all images belongs to."""
    counts = torch.tensor([len(each) for each in values])
    return torch.arange(len(values)).repeat_interleave(counts).to(values[0].device, non_blocking=True)


def balanced(labels: Tensor, keys: Tensor, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """A choice of at most `count` of the candidates (B, A) of each image: indices (B, K), and which are chosen, bool.

    Those of the highest keys (B, A), 0..1, are chosen. Labels (B, A) above 0 are positive, 0 negative, others are never
    chosen. At most count x positive_fraction are positive; negatives fill up. Its shapes do not depend on the labels,
    so that a GPU need not wait for them.
    """
    most, candidates = min(int(count * positive_fraction), labels.shape[1]), min(count, labels.shape[1])
    positive_keys, positive = keys.masked_fill(labels <= 0, -1).topk(most)
    negative_keys, negative = keys.masked_fill(labels != 0, -1).topk(candidates)
    taken = positive_keys >= 0
    room = torch.arange(candidates, device=labels.device) < count - taken.sum(dim=1, keepdim=True)
    return torch.cat([positive, negative], dim=1), torch.cat([taken, (negative_keys >= 0) & room], dim=1)


def keys_of(generators: Sequence[torch.Generator | None], counts: Sequence[int], device: torch.device) -> Tensor:
    """Random keys (B, A) of each image's candidates; of an image that has fewer, the last are 0."""
    drawn = [torch.rand(n, generator=each, device=device) for each, n in zip(generators, counts, strict=True)]
    return pad_sequence(drawn, batch_first=True)


def _pairs(grids: Grids, boxes_xyxy: Tensor, low: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchor, cell and IoU (P,) and the anchor's box (P, 4) of all pairs that reach `low` or a cell's best IoU.

    And of some pairs more. Anchors are counted in each image by itself.
    """
    reached = iou_of(boxes_xyxy[:, None], _nearest(grids, boxes_xyxy)).amax(dim=1)
    cells, shapes, places = _places(grids, boxes_xyxy, reached.clamp(max=low) * (1 - SLACK))
    numbers = places[:, 1] * grids.sizes_xy[shapes, 0] + places[:, 0]
    anchor_boxes = _shifted(grids.shapes[shapes], places, grids.strides_xy[shapes])
    anchors = grids.first[shapes] + numbers * grids.steps[shapes]
    return anchors, cells, iou_of(boxes_xyxy[cells], anchor_boxes), anchor_boxes


def _nearest(grids: Grids, boxes_xyxy: Tensor) -> Tensor:
    """Of each shape, the anchor (N, S, 4) nearest to each cell: none of its shape has a higher IoU."""
    places = (_distances(grids, boxes_xyxy) / grids.strides_xy).round().long().clamp(min=0)
    return _shifted(grids.shapes, places.minimum(grids.sizes_xy - 1), grids.strides_xy)


def _places(grids: Grids, boxes_xyxy: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cell and shape, (P,) each, and column and row (P, 2) of the pairs whose IoU may be `least` (N,) or more.

    An IoU of t asks for an overlap of t / (1 + t) of both areas together, and so for t / (1 + t) x areas / the lower
    height across, and the same down.
    """
    sides, shape_sides = (each[:, 2:] - each[:, :2] for each in (boxes_xyxy, grids.shapes))
    areas = sides.prod(dim=1)[:, None] + shape_sides.prod(dim=1)  # (N, S)
    shared = (least / (1 + least))[:, None] * areas
    lower = torch.minimum(sides[:, None], shape_sides)  # (N, S, 2)
    overlaps = shared[:, :, None] / lower.flip(-1).clamp(min=1e-6)
    reach = (sides[:, None] + shape_sides) / 2 - overlaps
    reach = torch.where(overlaps <= lower * (1 + SLACK), reach + SLACK, -1.0)
    distances = _distances(grids, boxes_xyxy)
    first = ((distances - reach) / grids.strides_xy).ceil().long().clamp(min=0)
    last = ((distances + reach) / grids.strides_xy).floor().long().minimum(grids.sizes_xy - 1)
    counts = ((last - first + 1).clamp(min=0) * (reach >= 0)).flatten(0, 1)  # (N S, 2)
    pairs = counts[:, 0] * counts[:, 1]
    owners = torch.repeat_interleave(pairs)  # (P,) numbers of a cell and a shape
    within = torch.arange(len(owners), device=owners.device) - (pairs.cumsum(0) - pairs)[owners]
    across = counts[owners, 0]
    places = first.flatten(0, 1)[owners] + torch.stack([within % across, within // across], dim=1)
    return owners // len(grids.shapes), owners % len(grids.shapes), places


def _distances(grids: Grids, boxes_xyxy: Tensor) -> Tensor:
    """From the centre of each shape at the origin to that of each cell, (N, S, 2) pixels xy."""
    centres, shape_centres = ((each[:, :2] + each[:, 2:]) / 2 for each in (boxes_xyxy, grids.shapes))
    return centres[:, None] - shape_centres


def _shifted(shapes: Tensor, places_xy: Tensor, strides_xy: Tensor) -> Tensor:
    """Anchors (…, 4) of shapes (…, 4) at places (…, 2)."""
    shift = places_xy * strides_xy
    return shapes + torch.cat([shift, shift], dim=-1)


def iou_of(first: Tensor, second: Tensor) -> Tensor:
    """Elementwise IoU of two broadcastable tensors of xyxy boxes, rounded as torchvision's box_iou rounds it."""
    overlap = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    shared = overlap[..., 0] * overlap[..., 1]
    areas = [(each[..., 2] - each[..., 0]) * (each[..., 3] - each[..., 1]) for each in (first, second)]
    return shared / (areas[0] + areas[1] - shared)
