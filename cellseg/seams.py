"""Detections of tiles -> detections of the image: a cell that two tiles have found is kept once.

Letters: N detections, M side of a mask.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, groupby, pairwise

import torch
from torch import Tensor
from torchvision.ops import box_iou

from cellseg.tiles import Tile


@dataclass(frozen=True)
class Detections:
    """Cells found in one image, original pixels, nothing pasted."""

    boxes: Tensor  # (N, 4) float32 xyxy
    labels: Tensor  # (N,) int64, 1..C
    scores: Tensor  # (N,) float32, 0..1
    masks: Tensor  # (N, M, M) float32 probabilities in the boxes

    def __getitem__(self, kept: Tensor) -> "Detections":
        """Those of a boolean or index tensor."""
        return Detections(self.boxes[kept], self.labels[kept], self.scores[kept], self.masks[kept])


def stitched(found: Iterable[tuple[Tile, Detections]], box_nms: float) -> Iterator[Detections]:
    """After each row of tiles, the detections that no later tile can change.

    Boxes that another tile can see, whose number grows with the seams, are compared with that tile's; those that the
    next row can see wait for it.
    """
    shared: list[tuple[Tile, Detections]] = []
    for _, row in groupby(found, key=lambda pair: pair[0].rows.start):
        done = []
        for tile, detections in row:
            unseen = _inside(detections.boxes, tile.alone)
            done.append(detections[unseen])
            shared.append((tile, detections[~unseen]))
            next_row = tile.alone[3]  # where it begins
        kept = _without_doubles(shared, box_nms)
        shared = []
        for tile, detections in kept:
            over = detections.boxes[:, 3] <= next_row
            done.append(detections[over])
            if not over.all():
                shared.append((tile, detections[~over]))
        yield _together(done)


def _without_doubles(shared: Sequence[tuple[Tile, Detections]], box_nms: float) -> list[tuple[Tile, Detections]]:
    """The detections of each tile without those that a better one of another tile meets with an IoU over `box_nms`.

    One that its tile may have cut is worse than one that lies inside; then the score decides. Also one of another
    class: two tiles may name one cell differently, and then all that is said of it comes from the tile that is surer.
    What one tile says about a cell, such as two classes, was for the network to settle.
    """
    begins = [0, *accumulate(len(detections.boxes) for _, detections in shared)]
    scores = torch.cat([detections.scores for _, detections in shared])
    cut = torch.cat([~_inside(detections.boxes, tile.inside) for tile, detections in shared])
    worth = (scores - cut.to(scores)).tolist()  # scores are 0..1
    pairs: list[tuple[int, int]] = []  # the better one first
    for (one, (tile, mine)), (other, (neighbour, theirs)) in combinations(enumerate(shared), 2):
        if _meet(tile.rows, neighbour.rows) and _meet(tile.columns, neighbour.columns):
            for n, k in (box_iou(mine.boxes, theirs.boxes) > box_nms).nonzero().tolist():
                a, b = begins[one] + n, begins[other] + k
                pairs.append((a, b) if worth[a] >= worth[b] else (b, a))
    lost: set[int] = set()
    for better, worse in sorted(pairs, key=lambda pair: (-worth[pair[0]], pair[0])):
        if better not in lost:
            lost.add(worse)
    kept = torch.tensor([n not in lost for n in range(begins[-1])], dtype=torch.bool)
    return [
        (tile, detections[kept[begin:end].to(detections.boxes.device)])
        for (tile, detections), (begin, end) in zip(shared, pairwise(begins), strict=True)
    ]


def _meet(one: slice, other: slice) -> bool:
    return bool(max(one.start, other.start) < min(one.stop, other.stop))


def _inside(boxes: Tensor, outer: Sequence[float]) -> Tensor:
    """Which boxes (N, 4) lie wholly in the outer box, (N,) bool."""
    edges = boxes.new_tensor(outer)
    return ((boxes[:, :2] >= edges[:2]) & (boxes[:, 2:] <= edges[2:])).all(dim=1)


def _together(parts: Sequence[Detections]) -> Detections:
    return Detections(*(torch.cat([getattr(part, name) for part in parts]) for name in Detections.__annotations__))
