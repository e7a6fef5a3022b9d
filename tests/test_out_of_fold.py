import pytest
from test_calibration import record, truth_of

from cellseg.calibration import IDENTITY, fit_calibration, recalibrated
from cellseg.evaluate import score
from cellseg.out_of_fold import best_epoch, judge, means_by_epoch, pooled

IMAGES = [{1}, {2}]
"""ids of the images of each fold of `halves`"""


def halves(scores_of):
    """The truth of two images with 30 cells of class 1 each, and results of one fold an image.

    scores_of gives the score of a right and of a false detection; a false one, three pixels wide, stands by each cell.
    """
    cells = [record(12 * n, 8, image_id=image) for image in (1, 2) for n in range(30)]
    right, false = scores_of
    folds = []
    for image in (1, 2):
        own = [cell for cell in cells if cell["image_id"] == image]
        fold = [{**cell, "score": right} for cell in own]
        folds.append(fold + [record(12 * n + 8, 3, score=false, image_id=image) for n in range(30)])
    return truth_of(cells, classes=1), folds


def test_the_epoch_is_chosen_by_the_mean_over_folds_and_the_earlier_wins_a_tie():
    means = means_by_epoch([{1: 0.1, 2: 0.75, 3: 0.25}, {1: 0.3, 2: 0.25, 3: 0.75}])
    assert means == {1: pytest.approx(0.2), 2: 0.5, 3: 0.5}
    assert best_epoch(means) == 2


def test_an_epoch_that_a_fold_has_not_validated_does_not_count():
    assert means_by_epoch([{2: 0.9, 4: 0.1}, {4: 0.3}]) == {4: pytest.approx(0.2)}


def test_results_of_folds_are_pooled_by_image_and_falling_score():
    folds = [[record(0, 9, score=0.2, image_id=2), record(0, 9, score=0.3, image_id=2)], [record(0, 9, score=0.1)]]
    assert [(each["image_id"], each["score"]) for each in pooled(folds)] == [(1, 0.1), (2, 0.3), (2, 0.2)]


def test_a_calibration_that_ranks_better_is_kept_with_the_threshold_of_its_scores():
    """Small false detections are as sure as the large right ones: size tells them apart."""
    truth, folds = halves((0.5, 0.5))
    learnt = judge(truth, [[*reversed(fold)] for fold in folds], IMAGES, 0.5)
    assert learnt.calibration is not None
    assert learnt.plain.metrics["AP50"] < 0.6
    assert learnt.kept_mean == learnt.calibrated_mean
    assert learnt.calibrated_mean["AP50"] == pytest.approx(1)
    assert learnt.calibrated_mean["PQ"] == pytest.approx(1)
    figures = learnt.figures()
    assert figures["out_of_fold/calibrated_mean/AP50"] == pytest.approx(1)
    assert figures["out_of_fold/class1/AP50"] == learnt.plain.metrics["AP50"]
    assert figures["out_of_fold/calibration_kept"] == 1


def test_a_calibration_that_ranks_worse_is_dropped_and_the_threshold_is_that_of_the_plain_scores():
    """Large cells are right in fold 1 and wrong in fold 2, small ones the other way: each fold misleads the other."""
    truth, (first, second) = halves((0.8, 0.6))
    cells = [{**each, "id": n} for n, each in enumerate([*first[:30], *second[30:]], start=1)]
    second = [{**each, "score": 1.4 - each["score"]} for each in second]
    learnt = judge({**truth, "annotations": cells}, [first, second], IMAGES, 0.5)
    assert learnt.plain.metrics["AP50"] == pytest.approx(1)
    assert learnt.calibrated_mean["AP50"] < 0.9
    assert learnt.calibration is None
    assert learnt.kept_mean == learnt.plain_mean
    assert 0.6 < learnt.pq_threshold <= 0.8


def test_a_calibration_is_judged_by_the_order_of_scores_within_each_fold():
    """In fold 1 all 30 are right, in fold 2 the surer 20 of 30: the others' shares turn the order of the pool round."""
    truth, (first, second) = halves((0.6, 0.5))
    first, second = first[:30], [{**each, "score": 0.7 if n < 20 else 0.5} for n, each in enumerate(second[:30])]
    truth["annotations"] = [cell for cell in truth["annotations"] if cell["image_id"] == 1 or cell["bbox"][0] < 240]
    apart = [recalibrated(held, fit_calibration(truth, other)) for held, other in ((first, second), (second, first))]
    learnt = judge(truth, [first, second], IMAGES, 0.5)
    assert score(truth, pooled(apart)).metrics["AP50"] < learnt.plain.metrics["AP50"] == pytest.approx(1)
    assert learnt.calibrated_mean["AP50"] == learnt.plain_mean["AP50"] == pytest.approx(1)
    assert learnt.calibration is not None


def test_an_image_without_any_result_counts_in_its_fold_and_a_fold_without_cells_in_no_mean():
    truth, (first, second) = halves((0.8, 0.6))
    missed = judge(truth, [first[:30], []], IMAGES, 0.5)
    assert missed.plain_mean["AP50"] == pytest.approx(0.5)
    truth["annotations"] = [cell for cell in truth["annotations"] if cell["image_id"] == 1]
    assert judge(truth, [first[:30], second], IMAGES, 0.5).plain_mean["AP50"] == pytest.approx(1)


def test_the_threshold_at_which_a_fold_is_judged_is_fitted_to_the_others():
    """Too few cells to calibrate; in fold 1 the right ones are those over .5, in fold 2 those over .2."""
    truth, folds = halves((0.9, 0.5))
    first, second = ([*fold[:9], *fold[30:39]] for fold in folds)
    second = [{**each, "score": 0.4 if each["score"] == 0.9 else 0.2} for each in second]
    truth["annotations"] = [cell for cell in truth["annotations"] if cell["bbox"][0] < 9 * 12]
    learnt = judge(truth, [first, second], IMAGES, 0.3)
    assert learnt.calibration == (IDENTITY,)
    assert learnt.calibrated_mean["PQ"] == pytest.approx((9 / 13.5 + 0) / 2)  # of fold 1 all are drawn, of fold 2 none
    assert learnt.pq_threshold == 0.25


def test_folds_that_have_no_cell_teach_no_threshold():
    truth, (first, second) = halves((0.9, 0.5))
    truth["annotations"] = [cell for cell in truth["annotations"] if cell["image_id"] == 1]
    assert judge(truth, [first[:30], second], IMAGES, 0.95).calibrated_mean["PQ"] == 0  # .95 is that so far


def test_folds_without_any_cell_are_refused_in_one_line():
    truth, folds = halves((0.9, 0.5))
    with pytest.raises(ValueError, match="expected a truth with cells to judge them by, found none"):
        judge({**truth, "annotations": []}, folds, IMAGES, 0.5)
