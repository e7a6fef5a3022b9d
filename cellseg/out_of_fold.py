"""Results of networks on folds that they have not seen -> epochs, calibration and threshold for one trained on all.

A result is out of fold when the network that made it never saw its image.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cellseg.calibration import Rows, fit_calibration, recalibrated
from cellseg.evaluate import METRICS, Scores, score
from cellseg.panoptic import best_pq_threshold
from cellseg.predict import Result

JUDGED_BY = "AP50"


@dataclass(frozen=True)
class OutOfFold:
    """What the results of all folds say.

    Calibrated scores are compared with plain ones fold by fold: each fold is calibrated in its own way, which says
    nothing of the order of scores across folds.
    """

    plain: Scores
    """of the results of all folds together, scores as the networks gave them, at the threshold that the config had"""
    plain_mean: dict[str, float]
    """the metrics of each fold's results alone, at that threshold too; mean over the folds that have a cell"""
    calibrated_mean: dict[str, float]
    """the same of the scores of each fold as calibrated on the others, at the threshold that fits those"""
    calibration: Rows | None
    """fitted to all folds; None where the mean AP50 of the calibrated scores is lower"""
    pq_threshold: float
    """with the highest mean PQ, of the calibrated scores where they are kept"""

    @property
    def kept_mean(self) -> dict[str, float]:
        """The metrics of the scores that are kept, mean over the folds."""
        return self.plain_mean if self.calibration is None else self.calibrated_mean

    def figures(self) -> dict[str, float]:
        """Named numbers, for a log."""
        named = {f"out_of_fold/{name}": value for name, value in self.plain.metrics.items()}
        named |= {f"out_of_fold/mean/{name}": value for name, value in self.plain_mean.items()}
        named |= {f"out_of_fold/calibrated_mean/{name}": value for name, value in self.calibrated_mean.items()}
        for label, figures in self.plain.per_class.items():
            named[f"out_of_fold/{label}/{JUDGED_BY}"] = figures[JUDGED_BY]
        kept = float(self.calibration is not None)
        return {**named, "out_of_fold/calibration_kept": kept, "out_of_fold/pq_threshold": self.pq_threshold}


def means_by_epoch(folds: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean over the folds of a figure per epoch, rising; of the epochs that all folds have."""
    common = set(folds[0]).intersection(*folds[1:])
    return {epoch: fmean(fold[epoch] for fold in folds) for epoch in sorted(common)}


def best_epoch(means: Mapping[int, float]) -> int:
    """The epoch with the highest mean, the earliest of several."""
    return min(means, key=lambda epoch: (-means[epoch], epoch))


def pooled(folds: Sequence[Sequence[Result]]) -> list[Result]:
    """The results of all folds by image, then falling score."""
    return sorted((each for fold in folds for each in fold), key=lambda each: (each["image_id"], -each["score"]))


def truth_of(truth: Mapping[str, Any], image_ids: Collection[int]) -> dict[str, Any]:
    """The part of a COCO truth that tells of these images."""
    images = [image for image in truth["images"] if image["id"] in image_ids]
    cells = [cell for cell in truth["annotations"] if cell["image_id"] in image_ids]
    return {**truth, "images": images, "annotations": cells}


def taught(truth: Mapping[str, Any], results: Sequence[Result], pq_threshold: float) -> tuple[Rows, float]:
    """The calibration fitted to results, and the threshold with the highest mean PQ of the scores that it gives them.

    The threshold so far where the truth has no cell.
    """
    rows = fit_calibration(truth, results)
    return rows, best_pq_threshold(truth, recalibrated(results, rows)) if truth["annotations"] else pq_threshold


def judge(
    truth: Mapping[str, Any],
    folds: Sequence[Sequence[Result]],
    images: Sequence[Collection[int]],
    pq_threshold: float,
) -> OutOfFold:
    """What to take over from the results of all folds, given their truth, each fold's image ids, the threshold so far.

    Raises ValueError for a truth without a cell.
    """
    if not truth["annotations"]:
        raise ValueError("results of folds: expected a truth with cells to judge them by, found none; annotate some")
    every = {image["id"] for image in truth["images"]}
    plain, calibrated = [], []
    for held, ids, others in zip(folds, images, _others(folds), strict=True):
        own = truth_of(truth, ids)
        if own["annotations"]:  # where there is no cell every figure is 0
            rows, threshold = taught(truth_of(truth, every.difference(ids)), others, pq_threshold)
            plain.append(score(own, held, pq_threshold).metrics)
            calibrated.append(score(own, recalibrated(held, rows), threshold).metrics)
    plain_mean, calibrated_mean = _mean(plain), _mean(calibrated)
    results = pooled(folds)
    kept = calibrated_mean[JUDGED_BY] >= plain_mean[JUDGED_BY]
    calibration, threshold = taught(truth, results, pq_threshold) if kept else (None, best_pq_threshold(truth, results))
    return OutOfFold(score(truth, results, pq_threshold), plain_mean, calibrated_mean, calibration, threshold)


def _others(folds: Sequence[Sequence[Result]]) -> list[list[Result]]:
    """Of each fold the results of all others."""
    return [pooled([*folds[:number], *folds[number + 1 :]]) for number in range(len(folds))]


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(each[name] for each in metrics) for name in METRICS}
