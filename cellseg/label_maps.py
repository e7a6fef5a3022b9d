"""Label maps <-> cells: ids, boxes, areas, run-length codes, and the Target of a training image.

Letters: C classes, H height, W width, N cells.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from cellseg.codes import Array, Code, encode, pixels_of


class Target(TypedDict):
    """The cells of one training image; cell n is label_maps[labels[n] - 1] == ids[n]."""

    boxes: Tensor  # (N, 4) float32 xyxy, half-open pixels of the label maps
    labels: Tensor  # (N,) int64, 1..C
    ids: Tensor  # (N,) int32
    label_maps: Tensor  # (C, H, W) int32


class NetworkTarget(Target):
    """A Target as the network trains on it: `boxes` in network pixels."""

    map_scale: Tensor  # (2,) float32, network pixels per map pixel, xy
    generator: torch.Generator | None  # of what is sampled from the image; None is torch's own


def ids_of(label_map: Array) -> Array:
    """Ids (N,) int32 of the cells of a label map (H, W), ascending."""
    return _cells(label_map)[0]


def areas_of(label_map: Array) -> Array:
    """Pixels (N,) int64 of the cells of a label map (H, W), in order of id."""
    return _cells(label_map)[1]


def boxes_of(label_map: Array) -> Array:
    """Tight half-open boxes (N, 4) float32 xyxy of the cells of a label map (H, W), in order of id.

    >>> label_map = np.zeros((4, 6), np.int32)
    >>> label_map[1, 2:5] = 7  # one row, three columns
    >>> boxes_of(label_map).tolist()
    [[2.0, 1.0, 5.0, 2.0]]
    """
    return _cells(label_map)[2]


def counts_of(label_maps: Array) -> Array:
    """Cells (C,) int64 of each class in label maps (C, H, W)."""
    return np.array([len(np.unique(plane[plane > 0])) for plane in label_maps], np.int64)


def _cells(label_map: Array) -> tuple[Array, Array, Array]:
    """Ids (N,), areas (N,) and boxes (N, 4), from the foreground pixels alone."""
    ys, xs = np.nonzero(label_map)
    ids, ranks, areas = np.unique(label_map[ys, xs], return_inverse=True, return_counts=True)
    boxes = np.empty((len(ids), 4), np.float32)
    for column, values, reduce in ((0, xs, np.minimum), (1, ys, np.minimum), (2, xs, np.maximum), (3, ys, np.maximum)):
        edge = np.full(len(ids), np.iinfo(np.int64).max if reduce is np.minimum else -1)
        reduce.at(edge, ranks, values)
        boxes[:, column] = edge + (reduce is np.maximum)
    return ids.astype(np.int32), areas, boxes


def target(label_maps: Array, minimum_area: int = 0) -> Target:
    """The Target of label maps (C, H, W); cells of fewer than minimum_area pixels are left out."""
    cells = [_cells(label_map) for label_map in label_maps]
    kept = [areas >= minimum_area for _, areas, _ in cells]
    labels = [np.full(int(keep.sum()), k, np.int64) for k, keep in enumerate(kept, start=1)]
    empty: list[Array] = [np.empty(0, np.int32)]
    return Target(
        boxes=torch.from_numpy(
            np.concatenate([np.empty((0, 4), np.float32), *(c[2][k] for c, k in zip(cells, kept, strict=True))])
        ),
        labels=torch.from_numpy(np.concatenate([np.empty(0, np.int64), *labels])),
        ids=torch.from_numpy(np.concatenate(empty + [c[0][k] for c, k in zip(cells, kept, strict=True)])),
        label_maps=torch.from_numpy(np.ascontiguousarray(label_maps, dtype=np.int32)),
    )


def codes_of(label_map: Array) -> list[Code]:
    """Run-length codes of the cells of a label map (H, W), in order of id."""
    ids, _, boxes = _cells(label_map)
    corners = boxes.astype(np.int64)
    masks = [label_map[y1:y2, x1:x2] == k for k, (x1, y1, x2, y2) in zip(ids, corners, strict=True)]
    return encode(masks, corners[:, :2], (label_map.shape[0], label_map.shape[1]))


def paint(codes: Sequence[Code], labels: Sequence[int], num_cell_classes: int, size_hw: tuple[int, int]) -> Array:
    """Label maps (C, H, W) int32 of cells that may overlap: cell n gets id n + 1, later ones win shared pixels."""
    height, width = size_hw
    pixels, owners = pixels_of(codes)  # down the columns, as run-length codes go
    columns = np.zeros((num_cell_classes, width * height), np.int32)
    columns[np.asarray(labels, np.int64)[owners] - 1, pixels] = owners + 1  # numpy lets the last value stay
    return np.ascontiguousarray(columns.reshape(num_cell_classes, width, height).transpose(0, 2, 1))
