"""An image of a report beside its truth and what was found, in few bytes.

Letters: N cells, C classes, H x W size of an image.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from cellseg.codes import Array
from cellseg.plots import drawn, overlay

SIDE = 560
"""longer side of a picture at most, pixels"""
WINDOW = 1000
"""longer side of the part of an image that is shown, original pixels; of a larger one cells would be specks"""
QUALITY = 72
"""of a JPEG"""
Window = tuple[slice, slice]


def side_by_side(
    image: Array, label_maps: Array, results: Sequence[dict[str, Any]], threshold: float
) -> tuple[bytes, bytes, Window]:
    """JPEG files of an image (H, W, 3) uint8 with its truth (C, H, W) and with its results, and what part they show."""
    found = drawn(results, len(label_maps), threshold, image.shape[:2])
    shown = fullest(label_maps, found)
    truth, prediction = (_jpeg(image[shown], each[:, *shown]) for each in (label_maps, found))
    return truth, prediction, shown


def fullest(*label_maps: Array, side: int = WINDOW) -> Window:
    """The window of at most that side with most pixels of cells in all label maps (C, H, W) together."""
    cells = np.sum([each.any(axis=0) for each in label_maps], axis=0)
    corners = [(y, x) for y in _starts(cells.shape[0], side) for x in _starts(cells.shape[1], side)]
    y, x = max(corners, key=lambda corner: cells[corner[0] : corner[0] + side, corner[1] : corner[1] + side].sum())
    height, width = cells.shape
    return slice(y, min(y + side, height)), slice(x, min(x + side, width))


def _starts(length: int, side: int) -> list[int]:
    """Where windows of that side begin: each half over the last, the last at the end."""
    return [*range(0, length - side, side // 2), max(0, length - side)]


def _jpeg(image: Array, label_maps: Array) -> bytes:
    factor = SIDE / max(image.shape[:2])
    scale = max(1, int(factor))
    picture = overlay(image, label_maps, scale=scale, width=2 if scale > 1 else max(1, round(2 / factor)))
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    # colours at full size: outlines are thin
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), settings)
    assert done
    return encoded.tobytes()
