"""Truth cells and drawn cells matched whatever their classes -> confusion of classes, recall by size, PQ of one image.

Letters: N truth cells and M drawn cells of an image, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np

from cellseg.calibration import sides_of
from cellseg.codes import Array
from cellseg.panoptic import Record, by_image, matched, pairs_of

EDGES = (0.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, inf)
"""sides between which cells are of like size, original pixels"""


@dataclass(frozen=True, eq=False)
class Matched:
    """The cells of one image, and which of them a drawn cell meets with an IoU over .5, whatever its class."""

    truth_labels: Array
    """(N,) int64, 1..C"""
    truth_sides: Array
    """(N,) square roots of the areas of their boxes, original pixels"""
    drawn_labels: Array
    """(M,) int64, 1..C"""
    found_as: Array
    """(N,) int64, the label of the drawn cell that meets it; 0 where none does"""
    ious: Array
    """(N,) of the two; 0 where none does"""

    @property
    def right(self) -> int:
        """Cells that were found as their own class."""
        return int((self.found_as == self.truth_labels).sum())

    @property
    def confused(self) -> int:
        """Cells that were found as another class."""
        return int((self.found_as > 0).sum()) - self.right

    @property
    def missed(self) -> int:
        """Cells that were not found."""
        return int((self.found_as == 0).sum())

    @property
    def false(self) -> int:
        """Drawn cells that are none of the truth."""
        return len(self.drawn_labels) - int((self.found_as > 0).sum())

    @property
    def pq(self) -> float:
        """PQ of all classes pooled: a cell of another class is one missed and one false. 1 where there is no cell."""
        cells = len(self.truth_labels) + len(self.drawn_labels)
        return float(2 * self.ious[self.found_as == self.truth_labels].sum() / cells) if cells else 1.0


@dataclass(frozen=True, eq=False)
class SizeBin:
    """The truth cells of like size; each count is (C,) int64, by class."""

    low: float
    """sides from here on, original pixels"""
    high: float
    """and below this"""
    cells: Array
    found: Array
    """by a drawn cell of any class"""
    right: Array
    """by a drawn cell of their own class"""


def matched_cells(truth: Mapping[str, Any], results: Sequence[Record], threshold: float) -> list[Matched]:
    """The cells of each image of a COCO truth, in its order, and the results of at least the threshold as drawn."""
    truth_of, results_of = by_image(truth["annotations"]), by_image(results)
    return [
        _matched_in(truth_of[image["id"]], results_of[image["id"]], image["height"] * image["width"], threshold)
        for image in truth["images"]
    ]


def confusion_of(images: Sequence[Matched], num_cell_classes: int) -> Array:
    """Cells (C + 1, C + 1) int64 by class, down, and by what they were found as, across.

    The last column holds the missed cells, the last row the false ones by what they were drawn as.
    """
    table = np.zeros((num_cell_classes + 1, num_cell_classes + 1), np.int64)
    for each in images:
        np.add.at(table, (each.truth_labels - 1, each.found_as - 1), 1)  # 0 - 1 is the last column
        table[-1, :-1] += _counts(each.drawn_labels, num_cell_classes) - _counts(each.found_as, num_cell_classes)
    return table


def recall_by_size(images: Sequence[Matched], num_cell_classes: int, edges: Sequence[float] = EDGES) -> list[SizeBin]:
    """The cells of all images in those of the bins between rising edges that have any."""
    labels, sides, found_as = (
        np.concatenate([np.empty(0), *(getattr(each, name) for each in images)])
        for name in ("truth_labels", "truth_sides", "found_as")
    )
    labels = labels.astype(np.int64)
    bins = []
    for low, high in pairwise(edges):
        inside = (low <= sides) & (sides < high)
        parts = (inside, inside & (found_as > 0), inside & (found_as == labels))
        if inside.any():
            bins.append(SizeBin(low, high, *(_counts(labels[part], num_cell_classes) for part in parts)))
    return bins


def _matched_in(truth: Sequence[Record], results: Sequence[Record], size: int, threshold: float) -> Matched:
    """Those of one image of so many pixels."""
    pairs = pairs_of(truth, results, size, threshold)
    found = matched(pairs, np.ones(len(pairs.ious), bool))
    found_as, ious = np.zeros(len(truth), np.int64), np.zeros(len(truth))
    found_as[pairs.truth_cells[found]] = pairs.drawn_labels[pairs.drawn_cells[found]]
    ious[pairs.truth_cells[found]] = pairs.ious[found]
    return Matched(pairs.truth_labels, sides_of(truth), pairs.drawn_labels, found_as, ious)


def _counts(labels: Array, num_cell_classes: int) -> Array:
    """How many (C,) of each class there are; labels of 0 are none."""
    counts: Array = np.bincount(labels, minlength=num_cell_classes + 1)[1:]
    return counts
