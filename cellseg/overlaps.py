"""Results that overlap -> results that do not: the pq operating point. No canvas of the image's size is made.

Letters: N results, h x w size of the window of one, H x W size of the image.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, product

import numpy as np

from cellseg.codes import CODES_AT_ONCE, Array, encode, windows_of
from cellseg.config import PredictConfig
from cellseg.predict import Result

BLOCK = 64
"""pixels a side of the squares by which neighbours are found"""


def settled(results: Iterable[Result], config: PredictConfig) -> list[Result]:
    """Results of one image by falling score, redrawn so that each pixel belongs to one of them at most.

    Results under `pq_threshold` are left out; of two cells the higher score wins a pixel, also across classes; cells
    that lost all their pixels are dropped. `label_maps.paint` draws what is left.
    """
    falling = sorted((r for r in results if r["score"] >= config.pq_threshold), key=lambda r: -float(r["score"]))
    kept: list[Result] = []
    corners: list[tuple[int, int]] = []
    windows: list[Array] = []
    nearby: dict[tuple[int, int], list[int]] = defaultdict(list)  # by block: which of the kept reach it
    for result, ((x, y), window) in zip(falling, windows_of([r["segmentation"] for r in falling]), strict=True):
        blocks = _blocks(x, y, window)
        for n in set(chain.from_iterable(nearby[block] for block in blocks)):
            _cut(window, (x, y), windows[n], corners[n])
        if window.any():
            for block in blocks:
                nearby[block].append(len(kept))
            kept.append(result)
            corners.append((x, y))
            windows.append(window)
    redrawn = []
    for begin in range(0, len(kept), CODES_AT_ONCE):
        part = slice(begin, begin + CODES_AT_ONCE)
        height, width = kept[begin]["segmentation"]["size"]
        codes = encode(windows[part], np.array(corners[part]), (height, width))
        redrawn += [{**result, "segmentation": code} for result, code in zip(kept[part], codes, strict=True)]
    return redrawn


def _blocks(x: int, y: int, window: Array) -> list[tuple[int, int]]:
    """The squares that a window reaches."""
    height, width = window.shape
    across = range(x // BLOCK, -(-(x + width) // BLOCK))
    return list(product(range(y // BLOCK, -(-(y + height) // BLOCK)), across))


def _cut(window: Array, corner_xy: tuple[int, int], other: Array, other_xy: tuple[int, int]) -> None:
    """Take from a window of our own the pixels of another."""
    right, down = other_xy[0] - corner_xy[0], other_xy[1] - corner_xy[1]
    height, width = other.shape
    under = window[max(down, 0) : max(down + height, 0), max(right, 0) : max(right + width, 0)]
    under &= ~other[max(-down, 0) : max(-down, 0) + under.shape[0], max(-right, 0) : max(-right, 0) + under.shape[1]]
