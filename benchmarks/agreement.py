"""How well the cells of a picture in tiles agree with those of the whole: F1, cells doubled, cells that a tile cut."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from cellseg.codes import Array
from cellseg.config import PredictConfig
from cellseg.predict import Result
from cellseg.tiles import tiles

ASIDE = 30
"""pixels from a tile's borders to where none is"""
SURE = 0.1
"""of a score, 0..1"""


def compared(
    ours: Sequence[Result],
    theirs: Sequence[Result] | None,
    size_hw: tuple[int, int],
    config: PredictConfig,
    stride: int,
) -> dict[str, Any]:
    """Cells over the pq threshold: how many, doubled, cut by a tile, and F1 against those of the whole."""
    lines = borders(size_hw, config, stride)
    drawn = [result for result in ours if result["score"] >= config.pq_threshold]
    notes: dict[str, Any] = {"cells": len(drawn), "doubled": doubled(drawn)}
    if theirs is None:
        return notes
    whole = [result for result in theirs if result["score"] >= config.pq_threshold]
    return {
        **notes,
        "cells_whole": len(whole),
        "doubled_more": notes["doubled"] - doubled(whole),
        "cut": cuts(drawn, whole, lines),
        "cut_by_chance": cuts(drawn, whole, (lines[0] + ASIDE, lines[1] + ASIDE)),
        "f1": f1(ours, theirs, config, 0.0),
        "f1_sure": f1(ours, theirs, config, SURE),
    }


def f1(ours: Sequence[Result], theirs: Sequence[Result], config: PredictConfig, sure: float) -> float:
    """Of cells over the threshold by `sure`, the share that the other list has down to as much below it; both ways."""
    shares = []
    for one, other in ((ours, theirs), (theirs, ours)):
        asked = [result for result in one if result["score"] >= config.pq_threshold + sure]
        allowed = [result for result in other if result["score"] >= config.pq_threshold - sure]
        shares.append(len(matched(asked, allowed)) / max(len(asked), 1))
    return 2 * shares[0] * shares[1] / max(sum(shares), 1e-9)


def borders(size_hw: tuple[int, int], config: PredictConfig, stride: int) -> tuple[Array, Array]:
    """Where tiles begin or end within an image, x and y."""
    found = list(tiles(size_hw, config, stride))
    whole_hw, (across, down) = found[0].whole_hw, found[0].scale_xy
    columns = {edge for tile in found for edge in (tile.columns.start, tile.columns.stop)} - {0, whole_hw[1]}
    lines = {edge for tile in found for edge in (tile.rows.start, tile.rows.stop)} - {0, whole_hw[0]}
    return np.array(sorted(columns)) / across, np.array(sorted(lines)) / down


def neighbours(one: Sequence[Result], other: Sequence[Result]) -> Iterator[tuple[int, Array, Array]]:
    """For each of one: the others whose boxes meet its box, and the IoU of their masks."""
    boxes = np.array([result["bbox"] for result in other]).reshape(-1, 4)
    order = np.argsort(boxes[:, 0])
    lefts, widest = boxes[order, 0], boxes[:, 2].max(initial=0)
    for n, result in enumerate(one):
        x, y, width, height = result["bbox"]
        near = order[np.searchsorted(lefts, x - widest) : np.searchsorted(lefts, x + width)]
        near = near[(boxes[near, 0] + boxes[near, 2] > x) & (boxes[near, 1] < y + height)]
        near = near[boxes[near, 1] + boxes[near, 3] > y]
        codes = [other[k]["segmentation"] for k in near]
        yield n, near, coco_mask.iou([result["segmentation"]], codes, [0] * len(codes))[0] if codes else np.empty(0)


def doubled(results: Sequence[Result]) -> int:
    """Pairs of results, of any class, that share more than half of their pixels."""
    return sum(int(((ious > 0.5) & (near > n)).sum()) for n, near, ious in neighbours(results, results))


def matched(ours: Sequence[Result], theirs: Sequence[Result], same_class: bool = True) -> list[tuple[int, int, float]]:
    """Pairs of cells whose masks have an IoU over 1/2, and the IoU; the best pairs first, each cell in one at most."""
    candidates = [
        (float(iou), n, int(k))
        for n, near, ious in neighbours(ours, theirs)
        for k, iou in zip(near, ious, strict=True)
        if iou > 0.5 and (not same_class or ours[n]["category_id"] == theirs[k]["category_id"])
    ]
    pairs = []
    ours_left, theirs_left = set(range(len(ours))), set(range(len(theirs)))
    for iou, n, k in sorted(candidates, reverse=True):
        if n in ours_left and k in theirs_left:
            ours_left.remove(n)
            theirs_left.remove(k)
            pairs.append((n, k, iou))
    return pairs


def cuts(ours: Sequence[Result], theirs: Sequence[Result], lines: tuple[Array, Array]) -> int:
    """How many of ours end at a line that their partner goes on beyond."""
    return sum(cut(ours[n]["bbox"], theirs[k]["bbox"], lines) for n, k, _ in matched(ours, theirs, same_class=False))


def cut(bbox: Sequence[float], whole: Sequence[float], lines: tuple[Array, Array]) -> bool:
    """Whether a box ends within half a pixel of a tile's border where that of the whole goes on for 2 pixels more."""
    for axis, borders_of_axis in enumerate(lines):
        low, high = bbox[axis], bbox[axis] + bbox[axis + 2]
        whole_low, whole_high = whole[axis], whole[axis] + whole[axis + 2]
        for edge, beyond in ((low, low - whole_low), (high, whole_high - high)):
            if beyond >= 2 and np.abs(borders_of_axis - edge).min(initial=np.inf) < 0.5:
                return True
    return False
