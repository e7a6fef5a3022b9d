"""Results of networks on folds that they have not seen -> epochs, calibration and threshold for one trained on all.

A result is out of fold when the network that made it never saw its image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cellseg.calibration import Rows, fit_calibration, recalibrated
from cellseg.evaluate import Scores, score
from cellseg.panoptic import Record, best_pq_threshold
from cellseg.predict import Result

JUDGED_BY = "AP50"


@dataclass(frozen=True)
class OutOfFold:
    """What the pooled results of all folds say."""

    plain: Scores
    """of the scores as the networks gave them, at the threshold that the config had"""
    calibrated: Scores
    """of the scores of each fold as calibrated on the others, at the new threshold where they are kept"""
    calibration: Rows | None
    """fitted to all folds; None where the calibrated AP50 is lower"""
    pq_threshold: float
    """with the highest mean PQ, of the calibrated scores where they are kept"""

    def figures(self) -> dict[str, float]:
        """Named numbers, for a log."""
        named = {f"out_of_fold/{name}": value for name, value in self.plain.metrics.items()}
        named |= {f"out_of_fold/calibrated/{name}": value for name, value in self.calibrated.metrics.items()}
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


def cross_fitted(truth: Mapping[str, Any], folds: Sequence[Sequence[Result]]) -> list[Result]:
    """The results of all folds, the scores of each calibrated by what was fitted to the others."""
    scored = []
    for number, held in enumerate(folds):
        others = pooled([fold for other, fold in enumerate(folds) if other != number])
        scored.append(recalibrated(held, fit_calibration(truth, others)))
    return pooled(scored)


def judge(truth: Mapping[str, Any], folds: Sequence[Sequence[Result]], pq_threshold: float) -> OutOfFold:
    """What to take over from the results of all folds, given the truth of their images and the threshold so far."""
    results, scored = pooled(folds), cross_fitted(truth, folds)
    plain = score(truth, results, pq_threshold)
    kept = score(truth, scored, pq_threshold).metrics[JUDGED_BY] >= plain.metrics[JUDGED_BY]
    found: Sequence[Record] = scored if kept else results
    threshold = best_pq_threshold(truth, found)
    return OutOfFold(
        plain=plain,
        calibrated=score(truth, scored, threshold if kept else pq_threshold),
        calibration=fit_calibration(truth, results) if kept else None,
        pq_threshold=threshold,
    )
