"""Scores that say how likely a detection is a true positive, given its class and size.

Of each class a row of four numbers, the coefficients of [logit(score), log(side), log(side)^2, 1], where side is the
square root of the area of a box, original pixels of images at one scale. Their sum is the logit of the calibrated score
(logistic calibration: Platt, Advances in Large Margin Classifiers, 1999; by place in the image and size: Kueppers et
al., arXiv 2004.13546). Letters: N detections, C classes, B bins.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy.optimize import minimize
from scipy.special import expit, logit

from cellseg.codes import Array

if TYPE_CHECKING:
    from torch import Tensor

Record = Mapping[str, Any]
Rows = tuple[tuple[float, ...], ...]
IDENTITY = (1.0, 0.0, 0.0, 0.0)
MATCH_IOU = 0.5
FEWEST = 20
"""true positives of a class; with fewer its scores stay as they are"""
RIDGE = 1.0
"""of the squared distance of the coefficients of standardised features from the identity, in detections"""
LEAST_SLOPE = 0.05
"""of logit(score): a higher score stays the higher one"""
EDGE = 1e-6
"""scores are cut to EDGE .. 1 - EDGE, where their logit is finite"""
DIGITS = 5


def fit_calibration(truth: Mapping[str, Any], results: Sequence[Record]) -> Rows:
    """The rows of all classes of a COCO truth, in order of id, fitted to results that were made without any."""
    hits, labels, sides = true_positives(truth, results), labels_of(results), sides_of(results)
    scores = scores_of(results)
    categories = sorted(category["id"] for category in truth["categories"])
    members = [labels == label for label in categories]
    return tuple(fit_class(scores[of], sides[of], hits[of]) for of in members)


def fit_class(scores: Array, sides: Array, hits: Array) -> tuple[float, ...]:
    """The row of one class, given its detections' scores (N,), sides (N,) and whether they are true positives (N,)."""
    if hits.sum() < FEWEST:
        return IDENTITY
    logs = np.log(np.maximum(sides, 1))
    mean, scale = logs.mean(), max(float(logs.std()), 1e-3)
    features = _features(scores, (logs - mean) / scale)
    identity = np.array(IDENTITY)

    def loss(row: Array) -> tuple[float, Array]:
        logits, away = features @ row, row - identity
        value = (np.logaddexp(0, logits) - hits * logits).sum() + RIDGE / 2 * away @ away
        return float(value), features.T @ (expit(logits) - hits) + RIDGE * away

    bounds = [(LEAST_SLOPE, None), (None, None), (None, 0), (None, None)]  # no size beyond the fitted is sure
    slope, linear, square, constant = minimize(loss, identity, jac=True, method="L-BFGS-B", bounds=bounds).x
    # from (log(side) - mean) / scale to log(side)
    square /= scale**2
    linear = linear / scale - 2 * square * mean
    constant = constant - linear * mean - square * mean**2
    return tuple(round(float(each), DIGITS) for each in (slope, linear, square, constant))


def calibrated(scores: "Tensor", boxes: "Tensor", labels: "Tensor", rows: Rows) -> "Tensor":
    """Calibrated scores (N,) float32 of detections with boxes (N, 4) xyxy in original pixels and labels (N,) 1..C."""
    scores, boxes = scores.float(), boxes.float()  # a bfloat16 has no room for logits
    slope, linear, square, constant = scores.new_tensor(rows)[labels - 1].unbind(1)
    logs = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt().clamp(min=1).log()
    return (slope * scores.logit(EDGE) + linear * logs + square * logs**2 + constant).sigmoid()


def rescaled(rows: Rows, factor: float) -> Rows:
    """The rows for an image whose pixels are `factor` times as long as those that the rows were fitted in."""
    shift = float(np.log(factor))  # log(side) is higher by it in the latter
    return tuple(
        (slope, linear + 2 * square * shift, square, constant + (linear + square * shift) * shift)
        for slope, linear, square, constant in rows
    )


def recalibrated(results: Sequence[Record], rows: Rows) -> list[dict[str, Any]]:
    """The same results with the scores that `calibrated` gives their boxes, by image, then falling score."""
    if not results:
        return []
    features = _features(scores_of(results), np.log(np.maximum(sides_of(results), 1)))
    scores = expit((features * np.array(rows)[labels_of(results) - 1]).sum(axis=1))
    scored = [{**result, "score": score} for result, score in zip(results, scores.tolist(), strict=True)]
    return sorted(scored, key=lambda result: (result["image_id"], -result["score"]))


def true_positives(truth: Mapping[str, Any], results: Sequence[Record], iou: float = MATCH_IOU) -> Array:
    """Whether each result (N,) bool is a true positive, as COCO decides it.

    By falling score, the earlier result first, each takes the cell of its class that it meets with the highest mask
    IoU and that no other has, if that is at least `iou`.
    """
    cells_of = defaultdict(list)
    for cell in truth["annotations"]:
        cells_of[cell["image_id"], cell["category_id"]].append(cell["segmentation"])
    numbers_of = defaultdict(list)
    for number, result in enumerate(results):
        numbers_of[result["image_id"], result["category_id"]].append(number)
    hits = np.zeros(len(results), bool)
    for key, numbers in numbers_of.items():
        if cells := cells_of.get(key):
            falling = sorted(numbers, key=lambda number: -results[number]["score"])
            codes = [results[number]["segmentation"] for number in falling]
            hits[falling] = _claims(coco_mask.iou(codes, cells, [0] * len(cells)), iou)
    return hits


def reliability(scores: Array, hits: Array, bins: int = 10) -> Array:
    """Mean score, share of true positives and number (B, 3) of the detections in each bin of the score that has any."""
    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    members = (places == place for place in np.unique(places))
    rows = [(scores[of].mean(), hits[of].mean(), of.sum()) for of in members]
    return np.array(rows, np.float64).reshape(-1, 3)


def scores_of(results: Sequence[Record]) -> Array:
    """(N,) float64."""
    return np.array([result["score"] for result in results], np.float64)


def labels_of(results: Sequence[Record]) -> Array:
    """(N,) int64, 1..C."""
    return np.array([result["category_id"] for result in results], np.int64)


def sides_of(results: Sequence[Record]) -> Array:
    """Square roots (N,) of the areas of the boxes, original pixels."""
    extents = np.array([result["bbox"][2:] for result in results], np.float64).reshape(-1, 2)
    sides: Array = np.sqrt(extents.prod(axis=1))
    return sides


def _features(scores: Array, logs: Array) -> Array:
    """(N, 4) of scores (N,) and logarithms (N,) of the sides."""
    cut = np.clip(scores, EDGE, 1 - EDGE)
    return np.column_stack([logit(cut), logs, logs**2, np.ones(len(logs))])


def _claims(ious: Array, least: float) -> Array:
    """Whether each detection, the surest first, gets a cell, given their IoUs (N, number of cells)."""
    left = ious.copy()
    hits = np.zeros(len(left), bool)
    for number, row in enumerate(left):  # a view: cells that are taken are out
        best = len(row) - 1 - int(np.argmax(row[::-1]))  # the last of equals, as pycocotools does
        if row[best] >= least:
            hits[number] = True
            left[:, best] = -1
    return hits
