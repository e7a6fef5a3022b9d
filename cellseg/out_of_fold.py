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
    """the metrics of each fold's results alone, mean over the folds"""
    calibrated_mean: dict[str, float]
    """the same of the scores of each fold as calibrated on the others"""
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


def calibrated_apart(truth: Mapping[str, Any], folds: Sequence[Sequence[Result]]) -> list[list[Result]]:
    """The results of each fold, their scores calibrated by what was fitted to the others.

    Scores of two folds are not to be compared: what others teach is the lower, the more of the hits are in the fold.
    """
    scored = []
    for number, held in enumerate(folds):
        others = pooled([fold for other, fold in enumerate(folds) if other != number])
        scored.append(recalibrated(held, fit_calibration(truth, others)))
    return scored


def cross_fitted(truth: Mapping[str, Any], folds: Sequence[Sequence[Result]]) -> list[Result]:
    """The results of `calibrated_apart` by image, then falling score: for figures of each fold alone."""
    return pooled(calibrated_apart(truth, folds))


def truth_of(truth: Mapping[str, Any], image_ids: Collection[int]) -> dict[str, Any]:
    """The part of a COCO truth that tells of these images."""
    images = [image for image in truth["images"] if image["id"] in image_ids]
    cells = [cell for cell in truth["annotations"] if cell["image_id"] in image_ids]
    return {**truth, "images": images, "annotations": cells}


def judge(
    truth: Mapping[str, Any],
    folds: Sequence[Sequence[Result]],
    images: Sequence[Collection[int]],
    pq_threshold: float,
) -> OutOfFold:
    """What to take over from the results of all folds, given their truth, each fold's image ids, the threshold so far.

    Raises ValueError for a truth without a cell.
    """
    results = pooled(folds)
    own = [truth_of(truth, ids) for ids in images]
    plain, calibrated = (_mean_metrics(own, each, pq_threshold) for each in (folds, calibrated_apart(truth, folds)))
    calibration = fit_calibration(truth, results) if calibrated[JUDGED_BY] >= plain[JUDGED_BY] else None
    return OutOfFold(
        plain=score(truth, results, pq_threshold),
        plain_mean=plain,
        calibrated_mean=calibrated,
        calibration=calibration,
        pq_threshold=best_pq_threshold(truth, recalibrated(results, calibration) if calibration else results),
    )


def _mean_metrics(
    truths: Sequence[Mapping[str, Any]], folds: Sequence[Sequence[Result]], pq_threshold: float
) -> dict[str, float]:
    """The metrics of each fold by its own truth, mean over the folds that have a cell."""
    scores = [
        score(truth, fold, pq_threshold) for truth, fold in zip(truths, folds, strict=True) if truth["annotations"]
    ]
    return {name: fmean(each.metrics[name] for each in scores) for name in METRICS}
