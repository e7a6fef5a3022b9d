"""What the mask head learns from: targets sampled from label maps, and its loss.

Letters: P positive RoIs of all images, M side of a mask, C classes, H x W size of the label maps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cellseg.distributed import mean_count


class Masked(NamedTuple):
    """The cell of each RoI: cell p is label_maps[images[p]][labels[p] - 1] == ids[p]."""

    label_maps: Sequence[Tensor]  # of each image (C, H, W) int32
    images: Tensor  # (P,)
    labels: Tensor  # (P,)
    ids: Tensor  # (P,)


def mask_targets(cells: Masked, boxes_xyxy: Tensor, side: int) -> Tensor:
    """Share (P, M, M) float32, 0..1, of each cell at the bin centres of its box (P, 4) in pixels of its label maps.

    Bilinear between the centres of the four pixels around a bin centre, so that the 1/2 level lies on the cell's
    outline; pixels beyond the map repeat its border. No mask is resized and none is larger than M x M.
    """
    planes = [each.reshape(-1) for each in cells.label_maps]
    pixels = torch.cat(planes) if len(planes) > 1 else planes[0]
    sizes = torch.tensor([each.shape for each in cells.label_maps])  # (B, 3)
    starts = sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
    start, _, height, width = torch.cat([starts[:, None], sizes], dim=1).to(boxes_xyxy.device)[cells.images].unbind(1)
    plane = (start + (cells.labels - 1) * height * width)[:, None]
    bins = (torch.arange(side, device=boxes_xyxy.device) + 0.5) / side
    xs = boxes_xyxy[:, 0, None] + bins * (boxes_xyxy[:, 2] - boxes_xyxy[:, 0])[:, None] - 0.5  # (P, M)
    ys = boxes_xyxy[:, 1, None] + bins * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])[:, None] - 0.5
    left, top = xs.floor(), ys.floor()
    right_share, bottom_share = (xs - left)[:, None, :], (ys - top)[:, :, None]
    last_row, last_column = height[:, None] - 1, width[:, None] - 1
    x0, x1 = ((left.long() + k).clamp(min=0).minimum(last_column)[:, None, :] for k in (0, 1))
    y0, y1 = ((plane + (top.long() + k).clamp(min=0).minimum(last_row) * width[:, None])[:, :, None] for k in (0, 1))

    def inside(rows: Tensor, columns: Tensor) -> Tensor:
        return (pixels[rows + columns] == cells.ids[:, None, None]).float()  # (P, M, M)

    upper = torch.lerp(inside(y0, x0), inside(y0, x1), right_share.expand(-1, side, -1))
    lower = torch.lerp(inside(y1, x0), inside(y1, x1), right_share.expand(-1, side, -1))
    return torch.lerp(upper, lower, bottom_share.expand(-1, -1, side))


def mask_loss(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Mean binary cross entropy of the logits (P, C + 1, M, M) of each RoI's own class; 0 without a positive RoI."""
    own = logits[torch.arange(len(logits), device=logits.device), labels]
    return F.binary_cross_entropy_with_logits(own, shares, reduction="sum") / mean_count(own.new_full((), own.numel()))
