"""A head that tells how well a mask fits its cell: Mask Scoring R-CNN, arXiv 1903.00241.

Letters: P RoIs, C channels, K classes of cells, M side of a mask, m = M / 2 side of the features that it is made of.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellseg.distributed import mean_count
from cellseg.mask_targets import Masked, mask_targets


class MaskQuality(nn.Module):
    """The IoU (P, K) of a mask with its cell, for each class that the cell may be of."""

    def __init__(self, channels: int, widths: Sequence[int], hidden: int, num_cell_classes: int, side: int) -> None:
        """Convolutions of these widths, the last of stride 2, and one hidden layer; side is m."""
        super().__init__()
        inputs = [channels + 1, *widths[:-1]]
        strides = [1] * (len(widths) - 1) + [2]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, width, 3, stride, 1)
            for before, width, stride in zip(inputs, widths, strides, strict=True)
        )
        self.hidden = nn.Linear(widths[-1] * ((side + 1) // 2) ** 2, hidden)
        self.output = nn.Linear(hidden, num_cell_classes)

    def forward(self, pooled: Tensor, probabilities: Tensor) -> Tensor:
        """Of features (P, C, m, m) and mask probabilities (P, M, M)."""
        values = torch.cat([pooled, F.max_pool2d(probabilities[:, None], 2).to(pooled)], dim=1)
        for convolution in self.convolutions:
            values = F.relu(convolution(values))
        ious: Tensor = self.output(F.relu(self.hidden(values.flatten(1))))
        return ious


def mask_ious(
    probabilities: Tensor, shares: Tensor, boxes_xyxy: Tensor, cells: Masked, boxes_of_cells: Tensor
) -> Tensor:
    """IoU (P,) of mask probabilities (P, M, M) over 1/2 with the whole cell, also with what lies outside its RoI.

    The boxes (P, 4) of RoIs and of their cells are in pixels of the label maps; shares (P, M, M) are the mask targets.
    """
    side = shares.shape[-1]
    drawn, inside = probabilities > 0.5, shares > 0.5
    bin_areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=1e-3).prod(dim=1) / side**2
    whole = mask_targets(cells, boxes_of_cells, side).mean(dim=(1, 2))
    whole = whole * (boxes_of_cells[:, 2:] - boxes_of_cells[:, :2]).prod(dim=1) / bin_areas  # in bins of the RoI
    shared = (drawn & inside).sum(dim=(1, 2)).float()
    return (shared / (drawn.sum(dim=(1, 2)) + whole - shared).clamp(min=1)).clamp(0, 1)


def mask_quality_loss(expected: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
    """Mean squared error of the IoU (P, K) expected for each RoI's own class; 0 without a positive RoI."""
    own = expected[torch.arange(len(labels), device=labels.device), labels - 1]
    return F.mse_loss(own, ious, reduction="sum") / mean_count(ious.new_full((), len(labels)))
