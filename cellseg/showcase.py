"""Which parts of a data set's images show its cells best.

Letters: N cells of an image; Y x X windows that lie over it as a grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellseg.anchors import sides_of
from cellseg.codes import Array
from cellseg.fingerprint import Fingerprint

ACROSS = 12
"""median cells of its image that a part is wide"""
NARROWEST, WIDEST = 64, 640
"""pixels that a part is wide, unless its image is smaller"""


@dataclass(frozen=True)
class Part:
    """A window of an image that is rich in cells of a class."""

    index: int
    """of the image"""
    rows: slice
    columns: slice
    label: int
    """the class, or 0: all count"""


def parts_of(found: Fingerprint, most: int) -> list[Part]:
    """At most so many parts that share no pixel: the richest in each class, the rarest first, then in any cells.

    Images that are not shown yet come before those that are.
    """
    labels, counts = np.unique(np.concatenate(found.labels), return_counts=True)
    rarest_first = labels[np.argsort(counts, kind="stable")].tolist()
    chosen: list[Part] = []
    for label in [*rarest_first, *[0] * most][:most]:
        shown = {part.index for part in chosen}
        richest = [_richest(found, index, label, chosen) for index in range(len(found.boxes))]
        best = max(richest, key=lambda each: (each[0] > 0, each[1].index not in shown, each[0]))
        if best[0]:
            chosen.append(best[1])
    return chosen


def _richest(found: Fingerprint, index: int, label: int, taken: Sequence[Part]) -> tuple[float, Part]:
    """How many cells of the class the best window of an image holds, 0 where none is left, and the window."""
    boxes = found.boxes[index]
    side = int(np.clip(ACROSS * np.median(sides_of(boxes)), NARROWEST, WIDEST)) if len(boxes) else NARROWEST
    height, width = (min(side, length) for length in found.sizes_hw[index])
    ys, xs = (_starts(length, side) for length in found.sizes_hw[index])
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).T
    inside_y = ((ys[:, None] <= y) & (y < ys[:, None] + height)).astype(np.float32)  # (Y, N)
    inside_x = ((xs[:, None] <= x) & (x < xs[:, None] + width)).astype(np.float32)  # (X, N)
    wanted = (found.labels[index] == label) | (label == 0)
    cells = inside_y[:, wanted] @ inside_x[:, wanted].T  # (Y, X)
    for part in taken:
        if part.index == index:
            meets_y = (ys < part.rows.stop) & (part.rows.start < ys + height)
            meets_x = (xs < part.columns.stop) & (part.columns.start < xs + width)
            cells[np.ix_(meets_y, meets_x)] = 0
    row, column = np.unravel_index(np.argmax(cells), cells.shape)
    top, left = int(ys[row]), int(xs[column])
    return float(cells.max()), Part(index, slice(top, top + height), slice(left, left + width), label)


def _starts(length: int, side: int) -> Array:
    """Where windows begin that cover a length, each half a side after the one before."""
    last = max(0, length - side)
    return np.unique(np.append(np.arange(0, last, side // 2), last))
