"""The cells that were found in one image: what every format is written from, with one number for each cell.

Letters: N cells, C classes, H x W size of the image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellseg.codes import Array, Code, windows_of


@dataclass(frozen=True, eq=False)
class Cells:
    """N cells of an image that share no pixel, by falling score: cell n, counted from 1, is n in every format."""

    size_hw: tuple[int, int]
    codes: tuple[Code, ...]
    """run-length codes (N) at the size of the image"""
    labels: Array
    """(N,) int64, 1..C"""
    scores: Array
    """(N,) float32, 0..1"""
    class_names: tuple[str, ...]
    """of the classes 1..C"""
    mpp: float | None = None
    """microns per pixel of the image; None where it is not known"""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def names(self) -> list[str]:
        """The class name of each cell."""
        return [self.class_names[label - 1] for label in self.labels]

    def windows(self) -> Iterator[tuple[tuple[int, int], Array]]:
        """Top left pixel (x, y) and mask (h, w) bool of each cell, tight around it."""
        return windows_of(self.codes)

    def boxes(self) -> Array:
        """Tight half-open boxes (N, 4) int64 xyxy."""
        boxes = [(x, y, x + window.shape[1], y + window.shape[0]) for (x, y), window in self.windows()]
        return np.array(boxes, np.int64).reshape(-1, 4)

    def to_label_map(self) -> Array:
        """Label map (H, W) int32: a pixel of cell n is n, background is 0.

        >>> code = {"size": [2, 3], "counts": "132"}  # 1 pixel of background, 3 of the cell, 2 of background
        >>> Cells((2, 3), (code,), np.array([2]), np.array([0.9]), ("a", "b")).to_label_map().tolist()
        [[0, 1, 0], [1, 1, 0]]
        """
        label_map = np.zeros(self.size_hw, np.int32)
        for number, ((x, y), window) in enumerate(self.windows(), start=1):
            height, width = window.shape
            label_map[y : y + height, x : x + width][window] = number
        return label_map

    def to_results(self, image_id: int = 1) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id, bbox xywh, score, segmentation."""
        boxes = ((x, y, window.shape[1], window.shape[0]) for (x, y), window in self.windows())
        columns = zip(self.labels.tolist(), boxes, self.scores.tolist(), self.codes, strict=True)
        return [
            {"image_id": image_id, "category_id": label, "bbox": list(box), "score": score, "segmentation": code}
            for label, box, score, code in columns
        ]

    def of_classes(self) -> dict[str, int]:
        """Cells of each class, by name."""
        counts = np.bincount(self.labels, minlength=len(self.class_names) + 1)[1:]
        return dict(zip(self.class_names, counts.tolist(), strict=True))


def cells_of(
    results: Sequence[dict[str, Any]],
    size_hw: tuple[int, int],
    class_names: Sequence[str],
    mpp: float | None = None,
) -> Cells:
    """The cells of results of one image that do not overlap, as `overlaps.settled` makes them."""
    falling = sorted(results, key=lambda result: -float(result["score"]))
    return Cells(
        size_hw,
        tuple(result["segmentation"] for result in falling),
        np.array([result["category_id"] for result in falling], np.int64),
        np.array([result["score"] for result in falling], np.float32),
        tuple(class_names),
        mpp,
    )
