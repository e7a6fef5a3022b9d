"""Mask probabilities in a box -> run-length code: sub-pixel, local to the box, drawn where the masks are.

Letters: N detections, n of them drawn at once, M side of a mask, h x w size of a window, H x W size of the image.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cellseg.codes import Array, Code, encode

PIXELS_AT_ONCE = 2**20
"""of the windows that are drawn together: 4 MB, which malloc keeps; more would come from the system each time"""


def paste(masks: Tensor, boxes_xyxy: Tensor, size_hw: tuple[int, int], threshold: float = 0.5) -> list[Code]:
    """Run-length codes of N masks (N, M, M) float32, 0..1, in boxes (N, 4), original pixels.

    A pixel belongs to a cell when its centre lies in the box and the mask, bilinear between bin centres, exceeds the
    threshold, 0 or more, there. No canvas of the image's size is made. A mask without such a pixel gives an empty code.
    """
    boxes = boxes_xyxy.cpu().numpy().astype(np.float64)
    first = np.maximum(np.ceil(boxes[:, :2] - 0.5), 0).astype(np.int64)  # the first pixel whose centre is in the box
    last = np.minimum(np.ceil(boxes[:, 2:] - 0.5), size_hw[::-1]).astype(np.int64)
    sizes = np.maximum(last - first, 0)  # (N, 2), w and h of the windows
    windows: list[Array] = [np.empty(0)] * len(boxes)
    for chosen in _alike(sizes.max(axis=1, initial=0), masks.shape[-1]):
        across, down = (
            _weights(boxes[chosen, axis], boxes[chosen, axis + 2], first[chosen, axis], sizes[chosen, axis], masks)
            for axis in (0, 1)
        )
        drawn = down @ masks[torch.from_numpy(chosen).to(masks.device)] @ across.mT  # (n, h, w)
        inside = (drawn > threshold).cpu().numpy()
        for n, window, (width, height) in zip(chosen, inside, sizes[chosen], strict=True):
            windows[n] = window[:height, :width]
    return encode(windows, first, size_hw)


def _alike(sides: Array, least: int) -> Iterator[Array]:
    """Indices of all windows by falling side, in parts that make no more than PIXELS_AT_ONCE where one alone does not.

    One huge cell would otherwise make a huge window of each; `least` is the side that the masks have anyway.
    """
    order = np.argsort(-sides, kind="stable")
    begin = 0
    while begin < len(order):
        count = max(1, PIXELS_AT_ONCE // max(int(sides[order[begin]]), least) ** 2)
        yield order[begin : begin + count]
        begin += count


def _weights(start: Array, end: Array, first: Array, counts: Array, masks: Tensor) -> Tensor:
    """Weights (n, pixels, M) of the bins at the centres of `counts` pixels from `first`; zero after the last one."""
    side = masks.shape[-1]
    steps = np.arange(counts.max())
    centres = first[:, None] + steps + 0.5  # (n, pixels)
    extent = np.maximum(end - start, 1e-6)[:, None]
    bins = np.clip((centres - start[:, None]) / extent * side - 0.5, 0, side - 1)
    left = np.minimum(bins.astype(np.int64), side - 2)
    share = bins - left
    shares = (np.stack([1 - share, share], axis=2) * (steps < counts[:, None])[:, :, None]).astype(np.float32)
    places = torch.from_numpy(np.stack([left, left + 1], axis=2)).to(masks.device)
    weights = masks.new_zeros((*bins.shape, side))
    return weights.scatter_(2, places, torch.from_numpy(shares).to(weights))
