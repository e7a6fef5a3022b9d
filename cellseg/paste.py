"""Mask probabilities in a box -> run-length code: sub-pixel, and local to the box.

Letters: N detections, M side of a mask, H x W size of the image.
"""

from collections.abc import Iterator

import numpy as np

from cellseg.codes import Array, Code, encode


def paste(masks: Array, boxes_xyxy: Array, size_hw: tuple[int, int], threshold: float = 0.5) -> list[Code]:
    """Run-length codes of N masks (N, M, M), 0..1, in boxes (N, 4) float, original pixels.

    A pixel belongs to a cell when its centre lies in the box and the mask, bilinear between bin centres, exceeds the
    threshold there. No canvas of the image's size is made. A mask without such a pixel gives an empty code.
    """
    windows, corners = [], np.zeros((len(masks), 2), np.int64)
    for n, (mask, corner) in enumerate(_windows(masks, boxes_xyxy, size_hw)):
        windows.append(mask > threshold)
        corners[n] = corner
    return encode(windows, corners, size_hw)


def _windows(masks: Array, boxes_xyxy: Array, size_hw: tuple[int, int]) -> Iterator[tuple[Array, tuple[int, int]]]:
    """Per detection: probabilities (h, w) at the pixel centres in its box, and its top left pixel (x, y)."""
    for mask, (x1, y1, x2, y2) in zip(masks, boxes_xyxy.astype(np.float64), strict=True):
        left, across = _weights(x1, x2, size_hw[1], mask.shape[1])
        top, down = _weights(y1, y2, size_hw[0], mask.shape[0])
        yield down @ mask @ across.T, (left, top)


def _weights(start: float, end: float, limit: int, side: int) -> tuple[int, Array]:
    """First pixel whose centre lies in [start, end), and the weights (pixels, M) of the bins at each centre."""
    first = max(int(np.ceil(start - 0.5)), 0)
    last = min(int(np.ceil(end - 0.5)), limit)
    centres = np.arange(first, max(last, first)) + 0.5
    bins = np.clip((centres - start) / max(end - start, 1e-6) * side - 0.5, 0, side - 1)
    distance = np.abs(bins[:, None] - np.arange(side)[None, :])
    return first, np.clip(1 - distance, 0, None).astype(np.float32)
