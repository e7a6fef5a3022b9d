"""Detections of tiles -> detections of the image: a cell that two tiles have found is kept once.

Letters: N detections, M side of a mask.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torchvision.ops import batched_nms

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

    Of two boxes of one class whose IoU is over `box_nms` the higher score stays. That is asked only of boxes that
    another tile can see, whose number grows with the seams; those that the next row can see wait for it.
    """
    waiting: list[Detections] = []
    for _, row in groupby(found, key=lambda pair: pair[0].rows.start):
        alone, shared = [], waiting
        for tile, detections in row:
            unseen = _inside(detections.boxes, tile.alone)
            alone.append(detections[unseen])
            shared.append(detections[~unseen])
        rivals = _together(shared)
        kept = rivals[batched_nms(rivals.boxes, rivals.scores, rivals.labels, box_nms)]
        done = kept.boxes[:, 3] <= tile.alone[3]
        waiting = [kept[~done]]
        yield _together([*alone, kept[done]])


def _inside(boxes: Tensor, outer: Sequence[float]) -> Tensor:
    """Which boxes (N, 4) lie wholly in the outer box, (N,) bool."""
    edges = boxes.new_tensor(outer)
    return ((boxes[:, :2] >= edges[:2]) & (boxes[:, 2:] <= edges[2:])).all(dim=1)


def _together(parts: Sequence[Detections]) -> Detections:
    return Detections(*(torch.cat([getattr(part, name) for part in parts]) for name in Detections.__annotations__))
