"""The AP that no detector exceeds where only so many of its detections of an image count: that of one without a fault.

Its masks are those of the truth, so its AP is the same at every IoU threshold. Letters: N images, C classes.
"""

import numpy as np

from cellseg.codes import Array
from cellseg.evaluate import CAP

RECALLS = np.linspace(0, 1, 101)
"""at which COCO's AP is a mean of precisions"""


def of_each_class(counts: Array, cap: int = CAP) -> Array:
    """How many of the cells (N, C) count where the best `cap` detections of a class and image do, as in COCO's AP."""
    counted: Array = np.minimum(counts, cap)
    return counted


def of_all_classes(counts: Array, cap: int = CAP) -> Array:
    """How many of the cells (N, C) are found where a network keeps `cap` detections an image, as torchvision's does.

    Those of the rarest classes first, where a cell is worth most to the mean over classes.
    """
    rarest_first = np.argsort(counts.sum(axis=0), kind="stable")
    reached = np.minimum(np.cumsum(counts[:, rarest_first], axis=1), cap)
    counted: Array = np.empty_like(reached)
    counted[:, rarest_first] = np.diff(reached, axis=1, prepend=0)
    return counted


def ap_ceiling(counted: Array, counts: Array) -> Array:
    """The AP (C,) of a detector that finds so many of the cells (N, C), and nothing else; NaN of a class without any.

    >>> ap_ceiling(np.array([[100], [20]]), np.array([[180], [20]])).round(3).tolist()  # recalls 0 to .6 of 0 to 1
    [0.604]
    """
    cells = counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        recall = counted.sum(axis=0) / cells
    reached = (RECALLS[:, None] <= recall) & (recall > 0)  # without a detection not even a recall of 0 is reached
    ceiling: Array = np.where(cells > 0, reached.mean(axis=0), np.nan)
    return ceiling
