"""RoI align over the levels of a feature pyramid, on a CPU as one weighted sum of feature pixels for each bin.

Letters: P RoIs of all images, M side of the output, S samples of a bin along a side, K = M x S, C channels.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

FINEST_STRIDE = 4


class CellRoiPool(MultiScaleRoIAlign):
    """torchvision's MultiScaleRoIAlign; forward and backward are four times as fast on a CPU, where it loops.

    It would infer the strides from its first image and keep them, wrong ones where that was small and padded.
    """

    def __init__(self, levels: int, side: int, samples: int) -> None:
        """Of the first levels of a pyramid, at strides 4, 8, …"""
        super().__init__([str(level) for level in range(levels)], side, samples)
        self.scales = [1 / (FINEST_STRIDE * 2**level) for level in range(levels)]
        self.map_levels = LevelMapper(2, 1 + levels)  # 2 ** 2 is the finest stride

    def forward(self, x: Mapping[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Features (P, C, M, M) of the boxes (…, 4) xyxy, network pixels, of each image."""
        maps = [x[name] for name in self.featmap_names]
        if maps[0].device.type != "cpu":
            features: Tensor = super().forward(dict(x), boxes, image_shapes)
            return features
        return pooled(maps, boxes, self.output_size[0], self.sampling_ratio)


def pooled(maps: Sequence[Tensor], boxes: Sequence[Tensor], side: int, samples: int) -> Tensor:
    """The same, of maps (B, C, H, W) at strides 4, 8, …"""
    channels = maps[0].shape[1]
    pixels = torch.cat([each.permute(0, 2, 3, 1).reshape(-1, channels) for each in maps])
    indices, weights = _taps(maps, boxes, side, samples)
    bins = F.embedding_bag(indices, pixels, per_sample_weights=weights, mode="sum")
    return bins.view(-1, side, side, channels).permute(0, 3, 1, 2)  # channels last, as convolutions like it here


def _taps(maps: Sequence[Tensor], boxes: Sequence[Tensor], side: int, samples: int) -> tuple[Tensor, Tensor]:
    """Which pixels of all maps each bin sums up, and their weights, (P M M, 4 S S) each."""
    rois = torch.cat(list(boxes))
    images = torch.repeat_interleave(torch.tensor([len(each) for each in boxes]))
    levels = _levels(rois, len(maps))
    sizes = torch.tensor([each.shape[-2:] for each in maps])
    starts = torch.tensor([0, *(each.shape[0] * each.shape[2] * each.shape[3] for each in maps)]).cumsum(0)
    heights, widths = sizes[levels].unbind(1)  # (P,)
    on_map = rois / (FINEST_STRIDE * 2.0**levels)[:, None]
    columns, across = _axis(on_map[:, 0], on_map[:, 2], widths, side, samples)
    rows, down = _axis(on_map[:, 1], on_map[:, 3], heights, side, samples)
    first = (starts[levels] + images * heights * widths)[:, None, None] + rows * widths[:, None, None]  # (P, M, 2 S)
    indices = first[:, :, None, :, None] + columns[:, None, :, None, :]  # (P, M, M, 2 S, 2 S)
    weights = down[:, :, None, :, None] * across[:, None, :, None, :]
    bins, taps = len(rois) * side**2, (2 * samples) ** 2
    return indices.reshape(bins, taps), weights.reshape(bins, taps)


def _levels(rois: Tensor, count: int) -> Tensor:
    """Level (P,) from 0: a RoI of 224 pixels belongs to the third, one of half the side to the one before."""
    sides = ((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])).sqrt()
    return (2 + torch.log2(sides / 224) + 1e-6).floor().nan_to_num().clamp(0, count - 1).long()


def _axis(start: Tensor, end: Tensor, limit: Tensor, side: int, samples: int) -> tuple[Tensor, Tensor]:
    """The two pixels along one axis that each sample lies between, and their shares, (P, M, 2 S) each.

    As torchvision's kernel has it: a RoI is a pixel wide at least, and what lies over a pixel outside counts as 0.
    """
    places = (torch.arange(side * samples) + 0.5) / (side * samples)
    at = start[:, None] + places * (end - start).clamp(min=1)[:, None]  # (P, K)
    last = limit[:, None] - 1
    inside = (at >= -1) & (at <= last + 1)
    at = at.clamp(min=0).minimum(last)
    low = at.floor().nan_to_num()  # a network that diverged gives NaN, which makes no index
    high_share = at - low
    shares = torch.stack([1 - high_share, high_share], dim=-1) * inside[..., None] / samples
    pixels = torch.stack([low, (low + 1).minimum(last)], dim=-1).long()
    return pixels.view(len(start), side, 2 * samples), shares.view(len(start), side, 2 * samples)
