"""What the mask head learns from: targets sampled from label maps, and its loss.

Letters: P positive RoIs, M side of a mask, C classes, H x W size of the label maps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cellseg.distributed import mean_count


def mask_targets(label_maps: Tensor, labels: Tensor, ids: Tensor, boxes_xyxy: Tensor, side: int) -> Tensor:
    """Share (P, M, M) float32, 0..1, of cell (labels[p], ids[p]) at the bin centres of boxes (P, 4) in map pixels.

    Bilinear between the centres of the four pixels around a bin centre, so that the 1/2 level lies on the cell's
    outline; pixels beyond the map repeat its border. No mask is resized and none is larger than M x M.
    """
    height, width = label_maps.shape[-2:]
    bins = (torch.arange(side, device=boxes_xyxy.device) + 0.5) / side
    xs = boxes_xyxy[:, 0, None] + bins * (boxes_xyxy[:, 2] - boxes_xyxy[:, 0])[:, None] - 0.5  # (P, M)
    ys = boxes_xyxy[:, 1, None] + bins * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])[:, None] - 0.5
    left, top = xs.floor(), ys.floor()
    right_share, bottom_share = (xs - left)[:, None, :], (ys - top)[:, :, None]
    x0, x1 = (left.long() + k for k in (0, 1))
    y0, y1 = (top.long() + k for k in (0, 1))
    plane = (labels - 1)[:, None, None]

    def inside(rows: Tensor, columns: Tensor) -> Tensor:
        found = label_maps[plane, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
        return (found == ids[:, None, None]).float()  # (P, M, M)

    upper = torch.lerp(inside(y0, x0), inside(y0, x1), right_share.expand(-1, side, -1))
    lower = torch.lerp(inside(y1, x0), inside(y1, x1), right_share.expand(-1, side, -1))
    return torch.lerp(upper, lower, bottom_share.expand(-1, -1, side))


def mask_loss(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Mean binary cross entropy of the logits (P, C + 1, M, M) of each RoI's own class; 0 without a positive RoI."""
    own = logits[torch.arange(len(logits), device=logits.device), labels]
    return F.binary_cross_entropy_with_logits(own, shares, reduction="sum") / mean_count(own.new_full((), own.numel()))
