"""Label maps <-> cells: ids, boxes, areas, run-length codes, and the Target of a training image.

Letters: C classes, H height, W width, N cells, K slivers of cells.
"""

from collections.abc import Mapping, Sequence
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
    ignored: Tensor  # (K, 4) float32 xyxy of cells that are neither to be found nor background


class NetworkTarget(Target):
    """A Target as the network trains on it: `boxes` and `ignored` in network pixels."""

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


def areas_by_id(label_maps: Array) -> dict[int, int]:
    """Pixels of each cell of label maps (C, H, W)."""
    planes = [_cells(label_map) for label_map in label_maps]
    return {k: area for ids, areas, _ in planes for k, area in zip(ids.tolist(), areas.tolist(), strict=True)}


def _cells(label_map: Array) -> tuple[Array, Array, Array]:
    """Ids (N,), areas (N,) and boxes (N, 4), from the runs of equal pixels along the rows: there are few."""
    ids, rows, starts, ends = _runs(label_map)
    order = np.argsort(ids, kind="stable")  # the rows of each cell still ascend
    ids, rows, starts, ends = ids[order], rows[order], starts[order], ends[order]
    first = np.flatnonzero(np.diff(ids, prepend=0))
    last = np.append(first[1:], len(ids))[: len(first)] - 1
    if not len(first):  # reduceat takes no empty array
        return ids, first, np.empty((0, 4), np.float32)
    left, right = np.minimum.reduceat(starts, first), np.maximum.reduceat(ends, first)
    boxes = np.stack([left, rows[first], right, rows[last] + 1], axis=1).astype(np.float32)
    return ids[first], np.add.reduceat(ends - starts, first), boxes


def _runs(label_map: Array) -> tuple[Array, Array, Array, Array]:
    """Id, row, first and end column of each run of one cell's pixels, row by row; each is (runs,)."""
    height, width = label_map.shape
    flat = np.zeros(1 + height * (width + 1), np.int32)
    flat[1:].reshape(height, width + 1)[:, :-1] = label_map  # a 0 between rows: no run goes on in the next
    flat, before = flat[1:], flat[:-1]
    starts = np.flatnonzero(flat != before)
    ends = np.append(starts[1:], flat.size)[: len(starts)]
    cells = flat[starts] > 0
    rows, columns = np.divmod(starts[cells], width + 1)
    return flat[starts[cells]], rows, columns, columns + (ends - starts)[cells]


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
        ignored=torch.empty(0, 4),
    )


def without_slivers(cells: Target, whole: Mapping[int, int], least_share: float, minimum_area: int = 0) -> Target:
    """The Target with the cells ignored that show less than that share of their whole pixels, by id, or too few.

    Cells that are not in `whole` are whole.
    """
    shown = areas_by_id(cells["label_maps"].numpy())
    least = {k: max(minimum_area, least_share * whole.get(k, 0)) for k in shown}
    kept = torch.tensor([shown[k] >= least[k] for k in cells["ids"].tolist()], dtype=torch.bool)
    return Target(
        boxes=cells["boxes"][kept],
        labels=cells["labels"][kept],
        ids=cells["ids"][kept],
        label_maps=cells["label_maps"],
        ignored=cells["boxes"][~kept],
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
