"""Results + truth -> PQ, F1 and AJI of the cells as they would be drawn, where a pixel belongs to one cell.

Flat arrays of pixels run down the columns, as COCO's run-length codes do. Letters: H height, W width, N results,
P pixels, K pairs of a truth cell and a drawn cell that share pixels.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellseg.codes import Array, pixels_of

Record = Mapping[str, Any]

MATCH_IOU = 0.5  # above it a cell has at most one partner: Kirillov et al. 2019, section 4.1
THRESHOLDS = tuple(number / 20 for number in range(1, 20))  # .05, .1, … .95


@dataclass(frozen=True)
class Panoptic:
    """Figures 0..1; the dicts are keyed by category id and hold the classes that occur in the truth."""

    pq: dict[int, float]
    f1: dict[int, float]
    aji: float


@dataclass(frozen=True)
class Pairs:
    """The cells of one image and how they overlap, regardless of class."""

    truth_labels: Array  # (number of truth cells,)
    drawn_labels: Array  # (number of drawn cells,)
    truth_areas: Array
    drawn_areas: Array
    truth_cells: Array  # (K,)
    drawn_cells: Array  # (K,)
    intersections: Array  # (K,) pixels

    @property
    def unions(self) -> Array:
        """Pixels (K,) of either cell of each pair."""
        return self.truth_areas[self.truth_cells] + self.drawn_areas[self.drawn_cells] - self.intersections

    @property
    def ious(self) -> Array:
        """(K,)."""
        return self.intersections / self.unions


def panoptic(truth: Mapping[str, Any], results: Sequence[Record], threshold: float = 0.5) -> Panoptic:
    """PQ and F1 per class and class-agnostic AJI of the results that score at least the threshold, pooled over images.

    Where results overlap the highest score wins the pixel, the earlier result a tie; results without a pixel left are
    not counted. Truth cells may overlap. PQ: Kirillov et al., Panoptic Segmentation, CVPR 2019. AJI: Kumar et al.,
    IEEE TMI 36(7), 2017.
    """
    truth_of, results_of = by_image(truth["annotations"]), by_image(results)
    ious: defaultdict[int, list[float]] = defaultdict(list)  # of the matched pairs of each class
    truth_counts: defaultdict[int, int] = defaultdict(int)
    drawn_counts: defaultdict[int, int] = defaultdict(int)
    intersection = union = 0
    for image in truth["images"]:
        pairs = pairs_of(truth_of[image["id"]], results_of[image["id"]], image["height"] * image["width"], threshold)
        for label, iou in _matches(pairs):
            ious[label].append(iou)
        for labels, counts in ((pairs.truth_labels, truth_counts), (pairs.drawn_labels, drawn_counts)):
            for label in labels.tolist():
                counts[label] += 1
        shared, joined = _aggregated(pairs)
        intersection, union = intersection + shared, union + joined
    # TP + FP / 2 + FN / 2 is half the number of truth cells and drawn cells together
    halves = {label: (count + drawn_counts[label]) / 2 for label, count in sorted(truth_counts.items())}
    return Panoptic(
        pq={label: sum(ious[label]) / half for label, half in halves.items()},
        f1={label: len(ious[label]) / half for label, half in halves.items()},
        aji=intersection / union if union else 0.0,
    )


def best_pq_threshold(truth: Mapping[str, Any], results: Sequence[Record]) -> float:
    """The one of THRESHOLDS with the highest mean PQ over the classes of the truth, the lowest of several.

    Raises ValueError for a truth without a cell.
    """
    if not truth["annotations"]:
        raise ValueError("threshold of the pq operating point: expected a truth with cells, found none")

    def mean_pq(threshold: float) -> float:
        return float(np.mean([*panoptic(truth, results, threshold).pq.values()]))

    return max(THRESHOLDS, key=mean_pq)


def by_image(records: Sequence[Record]) -> defaultdict[int, list[Record]]:
    """The records of each image id, in their order; none of an id that does not occur."""
    found: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        found[record["image_id"]].append(record)
    return found


def pairs_of(truth: Sequence[Record], results: Sequence[Record], size: int, threshold: float) -> Pairs:
    """The truth cells of one image of H * W = size pixels, and its results of at least the threshold as drawn."""
    results = [result for result in results if result["score"] >= threshold]
    weakest_first = np.argsort([-result["score"] for result in results], kind="stable")[::-1]
    results = [results[n] for n in weakest_first]
    pixels, owners = pixels_of([result["segmentation"] for result in results])
    drawing = np.zeros(size, np.int64)  # (H * W,) 1 + the number of the cell, 0 background
    drawing[pixels] = owners + 1  # of several values for one pixel, numpy keeps the last
    areas = np.bincount(drawing, minlength=len(results) + 1)
    numbers = np.flatnonzero(areas[1:])
    places = np.zeros(len(areas), np.int64)
    places[numbers + 1] = np.arange(1, len(numbers) + 1)  # vanished cells leave no gap in the numbers
    drawing = places[drawing]

    pixels, owners = pixels_of([annotation["segmentation"] for annotation in truth])
    base = len(numbers) + 1
    codes, intersections = _counted(owners * base + drawing[pixels])
    truth_cells, drawn_cells = codes // base, codes % base - 1
    on_cell = drawn_cells >= 0
    return Pairs(
        truth_labels=np.array([annotation["category_id"] for annotation in truth], np.int64),
        drawn_labels=np.array([results[n]["category_id"] for n in numbers], np.int64),
        truth_areas=np.bincount(owners, minlength=len(truth)),
        drawn_areas=areas[numbers + 1],
        truth_cells=truth_cells[on_cell],
        drawn_cells=drawn_cells[on_cell],
        intersections=intersections[on_cell],
    )


def _counted(values: Array) -> tuple[Array, Array]:
    """The different values, rising, and how often each occurs; runs of one value are counted as one: there are few."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    lengths = np.diff(starts, append=len(values))
    different, ranks = np.unique(values[starts], return_inverse=True)
    counts = np.zeros(len(different), np.int64)
    np.add.at(counts, ranks, lengths)
    return different, counts


def matched(pairs: Pairs, allowed: Array) -> Array:
    """Which of the allowed pairs (K,) bool match, as their numbers: each cell is in one of them at most."""
    close = np.flatnonzero((pairs.ious > MATCH_IOU) & allowed)
    close = close[np.argsort(-pairs.ious[close], kind="stable")]
    # drawn cells are disjoint, but truth cells may overlap and claim one drawn cell twice: the better pair stays
    found: Array = close[np.unique(pairs.drawn_cells[close], return_index=True)[1]]
    return found


def _matches(pairs: Pairs) -> list[tuple[int, float]]:
    """Label and IoU of the pairs of one class that match."""
    labels = pairs.truth_labels[pairs.truth_cells]
    found = matched(pairs, labels == pairs.drawn_labels[pairs.drawn_cells])
    return list(zip(labels[found].tolist(), pairs.ious[found].tolist(), strict=True))


def _aggregated(pairs: Pairs) -> tuple[int, int]:
    """Aggregated intersection and union: each truth cell with its best drawn cell, then the drawn cells never used."""
    unions = pairs.unions
    best = np.lexsort((-pairs.ious, pairs.truth_cells))
    found, first = np.unique(pairs.truth_cells[best], return_index=True)
    best = best[first]
    missed = np.delete(pairs.truth_areas, found).sum()
    unused = np.delete(pairs.drawn_areas, np.unique(pairs.drawn_cells[best])).sum()
    return int(pairs.intersections[best].sum()), int(unions[best].sum() + missed + unused)
