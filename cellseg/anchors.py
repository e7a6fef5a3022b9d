"""Anchor sets: their best possible recall on the grid that the FPN really has, and the set that fits given boxes.

Letters: N boxes, A anchors of one level. A set is (sizes, ratios), as ModelConfig holds it: the
sizes of the finest level first, as many for every level.
"""

from collections.abc import Sequence

import numpy as np

from cellseg.codes import Array

Sizes = tuple[float, ...]
Ratios = tuple[float, ...]
MATCH_IOU = 0.7
"""IoU from which an anchor counts as positive for a box in torchvision's RPN."""


def strides_of(levels: int) -> tuple[int, ...]:
    """Strides of FPN levels, from P2: 4, 8, 16, …"""
    return tuple(4 * 2**level for level in range(levels))


def geometric(base: float, scale: float, levels: int, per_level: int) -> Sizes:
    """Sizes base, base x scale, base x scale^2, … for all levels.

    >>> geometric(8, 2, levels=2, per_level=2)
    (8.0, 16.0, 32.0, 64.0)
    """
    return tuple(round(float(base) * scale**k, 2) for k in range(levels * per_level))


def by_level(sizes: Sizes, levels: int) -> tuple[Sizes, ...]:
    """The sizes of each level. Raises ValueError where they cannot be shared out evenly.

    >>> by_level((8.0, 16.0, 32.0, 64.0), levels=2)
    ((8.0, 16.0), (32.0, 64.0))
    """
    each, rest = divmod(len(sizes), levels)
    if rest or not each:
        raise ValueError(
            f"model.anchor_sizes: expected as many sizes for each of the {levels} levels (stages + extra_level), "
            f"got {len(sizes)}: {', '.join(map(str, sizes))}"
        )
    return tuple(sizes[level * each : (level + 1) * each] for level in range(levels))


def symmetric_ratios(largest: float) -> Ratios:
    """Height / width ratios 1 / largest, 1, largest; 1 alone when largest is 1."""
    return (1.0,) if largest == 1 else (round(1 / largest, 3), 1.0, round(float(largest), 3))


def sides_of(boxes_xyxy: Array) -> Array:
    """Sides (N,) of the squares that are as large as the boxes (N, 4)."""
    sides: Array = np.sqrt((boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1]))
    return sides


def cell_anchors(sizes: Sequence[float], ratios: Ratios) -> Array:
    """Anchors (A, 4) float64 xyxy around the origin, rounded as torchvision's AnchorGenerator rounds them."""
    roots = np.sqrt(np.asarray(ratios, dtype=np.float64))
    widths = (np.asarray(sizes)[None, :] / roots[:, None]).ravel()
    heights = (np.asarray(sizes)[None, :] * roots[:, None]).ravel()
    anchors: Array = np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2)
    return anchors


def best_ious(boxes_xyxy: Array, sizes: Sizes, ratios: Ratios, strides: Sequence[int]) -> Array:
    """IoU (N,) of each box, in network pixels, with the anchor of all levels that fits it best.

    Anchors stand on the multiples of the stride, so the one nearest to a box's centre is the best of its shape.
    """
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    best = np.zeros(len(boxes_xyxy))
    for level_sizes, stride in zip(by_level(sizes, len(strides)), strides, strict=True):
        grid = np.round(centres / stride) * stride  # (N, 2)
        anchors = cell_anchors(level_sizes, ratios)[None] + np.tile(grid, 2)[:, None]  # (N, A, 4)
        best = np.maximum(best, _ious(boxes_xyxy[:, None], anchors).max(axis=1, initial=0))
    return best


def best_possible_recall(
    boxes_xyxy: Array, sizes: Sizes, ratios: Ratios, strides: Sequence[int], threshold: float = MATCH_IOU
) -> float:
    """Share of the boxes, in network pixels, that some anchor matches at the IoU threshold; NaN without boxes."""
    ious = best_ious(boxes_xyxy, sizes, ratios, strides)
    return float(np.mean(ious >= threshold)) if len(ious) else float("nan")


def fit(boxes_xyxy: Array, levels: int, per_level: int) -> tuple[Sizes, Ratios]:
    """The geometric set with the highest recall plus mean best IoU on the boxes (N, 4), network pixels.

    A grid search over at most 1,000 of them. Raises ValueError without boxes.
    """
    if not len(boxes_xyxy):
        raise ValueError("anchors: expected at least one box to fit to, found none; does the training set hold cells?")
    boxes = boxes_xyxy[:: max(1, len(boxes_xyxy) // 1000)].astype(np.float64)
    low, high = np.percentile(sides_of(boxes), [2, 60])
    candidates = [
        (geometric(base, scale, levels, per_level), symmetric_ratios(ratio))
        for base in np.geomspace(max(low, 3), max(high, 6), 8)
        for scale in (1.25, 1.4, 1.6, 2.0)
        for ratio in (1.0, 1.4, 1.8)
    ]

    def fitness(candidate: tuple[Sizes, Ratios]) -> float:
        ious = best_ious(boxes, *candidate, strides_of(levels))
        return float((ious >= MATCH_IOU).mean() + ious.mean())

    return max(candidates, key=fitness)


def _ious(first: Array, second: Array) -> Array:
    """Elementwise IoU of two broadcastable arrays of xyxy boxes."""
    overlap = np.clip(
        np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]), 0, None
    )
    shared = overlap.prod(axis=-1)
    areas = (first[..., 2:] - first[..., :2]).prod(axis=-1) + (second[..., 2:] - second[..., :2]).prod(axis=-1)
    ious: Array = shared / np.maximum(areas - shared, 1e-9)
    return ious
