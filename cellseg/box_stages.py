"""Box heads in a cascade: each is trained on the boxes that the one before it made, at a higher IoU.

Cascade R-CNN, arXiv 1712.00726. A single stage is torchvision's box head. Letters: B images, R RoIs of all images, K of
each, N cells, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image

from cellseg.distributed import mean_count
from cellseg.label_maps import Target
from cellseg.matching import iou_of


@dataclass(frozen=True)
class Level:
    """What sets one stage apart from the others."""

    positive_iou: float
    """of a RoI with a cell, from which it is trained to find that cell"""
    scale: float
    """of the box deltas: the better the boxes, the smaller the moves"""
    weight: float
    """of its losses"""

    @property
    def coder(self) -> BoxCoder:
        """Boxes <-> deltas."""
        return BoxCoder((10 * self.scale, 10 * self.scale, 5 * self.scale, 5 * self.scale))


LEVELS = (Level(0.5, 1, 1.0), Level(0.6, 2, 0.5), Level(0.7, 3, 0.25))
"""of the paper"""


class BoxStage(nn.Module):
    """A box head and its predictor."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.predictor = predictor

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (R, C + 1) and box deltas (R, 4 or 4 (C + 1)) of pooled features."""
        logits, deltas = self.predictor(self.head(pooled))
        return logits, deltas


class Truth(NamedTuple):
    """The cells of B images, padded to N rows an image; the last row is always padding."""

    boxes: Tensor  # (B, N, 4) network pixels
    labels: Tensor  # (B, N) class 1..C, -1 ignored, 0 padding
    ids: Tensor  # (B, N)


class Matched(NamedTuple):
    """The cell that each RoI of B images finds."""

    labels: Tensor  # (B, K) class 1..C, 0 background, or -1: it finds an ignored cell, or is padding
    ids: Tensor  # (B, K) of the cell
    aims_at: Tensor  # (B, K, 4) its box


def truth_of(targets: Sequence[Target]) -> Truth:
    """The cells of these images, then their ignored ones."""
    boxes = [torch.cat([each["boxes"], each["ignored"]]) for each in targets]
    labels = [F.pad(each["labels"], (0, len(each["ignored"])), value=-1) for each in targets]
    ids = [F.pad(each["ids"], (0, len(each["ignored"]))) for each in targets]
    of_all = [F.pad(pad_sequence(each, batch_first=True), (0, 1)) for each in (labels, ids)]
    return Truth(F.pad(pad_sequence(boxes, batch_first=True), (0, 0, 0, 1)), *of_all)


def matched(boxes_xyxy: Tensor, truth: Truth, positive_iou: float) -> Matched:
    """For each box (B, K, 4) the cell that it overlaps most; background where the IoU is lower than positive_iou.

    Boxes without a width are padding.
    """
    none = truth.labels == 0
    cells = truth.boxes + none[..., None] * truth.boxes.new_tensor([0.0, 0.0, 1.0, 1.0])  # of an area, for the deltas
    ious = iou_of(cells[:, :, None], boxes_xyxy[:, None]).masked_fill(none[:, :, None], 0)
    overlaps, found = ious.max(dim=1)  # (B, K)
    images = torch.arange(len(found), device=found.device)[:, None]
    labels = truth.labels[images, found] * (overlaps >= positive_iou)
    labels = labels.masked_fill(boxes_xyxy[..., 2] <= boxes_xyxy[..., 0], -1)
    return Matched(labels, truth.ids[images, found], cells[images, found])


def refined(boxes_xyxy: Sequence[Tensor], decoded: Tensor, sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The RoIs of the next stage, per image: those decoded (R, 4) of all images, clipped, of a pixel at least."""
    parts = torch.split(decoded.detach(), [len(each) for each in boxes_xyxy])
    clipped = [clip_boxes_to_image(part, size) for part, size in zip(parts, sizes_hw, strict=True)]
    return [torch.cat([each[:, :2], torch.maximum(each[:, 2:], each[:, :2] + 1)], dim=1) for each in clipped]


def box_losses(logits: Tensor, deltas: Tensor, labels: Tensor, aims: Tensor) -> tuple[Tensor, Tensor]:
    """Of R RoIs: mean cross entropy (R, C + 1), and smooth L1 of the deltas of each one's own class, also by R.

    Deltas are (R, 4 (C + 1)), or (R, 4) for all classes. RoIs of label -1 lose nothing.
    """
    count = mean_count(logits.new_full((), len(labels)))
    per_class = deltas.view(len(labels), deltas.shape[1] // 4, 4)
    rows = torch.arange(len(labels), device=labels.device)
    own = per_class[:, 0] if per_class.shape[1] == 1 else per_class[rows, labels]
    moved = F.smooth_l1_loss(own, aims, beta=1 / 9, reduction="none").sum(dim=1)
    classified = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    return classified / count, (moved * (labels > 0)).sum() / count


def class_offsets(shares: Sequence[float], strength: float) -> Tensor:
    """What training adds to the class logits (C + 1,), so that a rare class must win by more.

    Logit adjustment, arXiv 2007.07314, among the cells alone: strength x log of each class's share of the largest
    share. Background and the most frequent class stay as they are, and so do the scores of most cells.
    """
    logs = torch.tensor(shares, dtype=torch.float32).log()
    return torch.cat([torch.zeros(1), strength * (logs - logs.max())])
