import contextlib
import copy
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.special import expit, logit

from cellseg.calibration import (
    FEWEST,
    IDENTITY,
    calibrated,
    fit_calibration,
    fit_class,
    recalibrated,
    reliability,
    rescaled,
    true_positives,
)
from cellseg.codes import encode

SIZE = (40, 400)


def record(x, width, label=1, score=None, image_id=1):
    """A cell, or a result where it has a score: 10 rows from the top, `width` columns from x on."""
    (code,) = encode([np.ones((10, width), bool)], np.array([[x, 0]]), SIZE)
    found = {"image_id": image_id, "category_id": label, "segmentation": code, "bbox": [x, 0, width, 10]}
    return found if score is None else {**found, "score": score}


def truth_of(cells, classes=2):
    images = [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in (1, 2)]
    return {
        "images": images,
        "categories": [{"id": label, "name": f"class{label}"} for label in range(1, classes + 1)],
        "annotations": [{**cell, "id": number} for number, cell in enumerate(cells, start=1)],
    }


def simulated(row, count=40_000, seed=0):
    """Scores, sides and outcomes of detections whose chance of being a true positive is that of a row."""
    rng = np.random.default_rng(seed)
    scores, sides = rng.uniform(0.05, 0.99, count), np.exp(rng.normal(3.3, 0.5, count))
    logs = np.log(sides)
    chances = expit(np.column_stack([logit(scores), logs, logs**2, np.ones(count)]) @ row)
    return scores, sides, rng.random(count) < chances


def test_the_surest_detection_takes_the_cell_and_its_double_is_false():
    truth = truth_of([record(0, 20)])
    results = [record(0, 20, score=0.5), record(2, 20, score=0.9)]  # IoU 1 and 18 / 22
    assert true_positives(truth, results).tolist() == [False, True]


def test_a_detection_whose_best_cell_is_taken_gets_the_next_one():
    truth = truth_of([record(0, 20), record(4, 20)])
    results = [record(0, 20, score=0.9), record(1, 20, score=0.8), record(40, 20, score=0.7)]
    assert true_positives(truth, results).tolist() == [True, True, False]  # 17 / 23 with the second


def test_iou_one_half_is_enough_and_class_and_image_must_agree():
    truth = truth_of([record(0, 20), record(100, 20)])
    results = [record(0, 10, score=0.9), record(100, 20, label=2, score=0.9), record(100, 20, score=0.9, image_id=2)]
    assert true_positives(truth, results).tolist() == [True, False, False]
    assert true_positives(truth, [record(0, 9, score=0.9)]).tolist() == [False]
    assert true_positives(truth, []).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_true_positives_are_those_that_pycocotools_matches(seed):
    rng = np.random.default_rng(seed)
    cells = [record(*map(int, each)) for each in zip(rng.integers(0, 90, 25), rng.integers(5, 30, 25), strict=True)]
    found = [record(*map(int, each)) for each in zip(rng.integers(0, 90, 60), rng.integers(5, 30, 60), strict=True)]
    results = [{**each, "score": float(score)} for each, score in zip(found, rng.random(60), strict=True)]
    truth = truth_of([{**cell, "area": 1, "iscrowd": 0} for cell in cells], classes=1)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "segm")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    (of_image,) = (each for each in evaluation.evalImgs if each)
    matched = {number - 1 for number, cell in zip(of_image["dtIds"], of_image["dtMatches"][0], strict=True) if cell}
    assert 5 < len(matched) < 60
    assert set(np.flatnonzero(true_positives(truth, results)).tolist()) == matched


@pytest.mark.parametrize("row", [(0.6, 1.5, -0.3, -2.5), (1.8, 2.0, -0.4, -1.5), (1.0, 0.0, 0.0, 0.0)])
def test_known_coefficients_are_recovered_as_far_as_they_matter(row):
    scores, sides, hits = simulated(row)
    fitted = fit_class(scores, sides, hits)
    assert fitted[0] == pytest.approx(row[0], abs=0.05)
    for side in (12.0, 27.0, 60.0):
        logs = np.log(side)
        features = np.array([0.0, logs, logs**2, 1.0])  # a score of 1/2
        assert expit(features @ fitted) == pytest.approx(expit(features @ np.array(row)), abs=0.03)


def test_a_class_with_too_few_true_positives_keeps_its_scores():
    scores, sides, hits = simulated((0.5, 0.0, 0.0, -2.0), count=2000)
    few = np.cumsum(hits) < FEWEST
    assert fit_class(scores[few], sides[few], hits[few]) == IDENTITY
    enough = np.cumsum(hits) <= FEWEST
    assert fit_class(scores[enough], sides[enough], hits[enough]) != IDENTITY


def test_scores_that_mislead_stay_in_their_order():
    scores = np.linspace(0.05, 0.95, 200)
    slope, *_ = fit_class(scores, np.full(200, 20.0), scores < 0.5)
    assert slope > 0


def test_a_class_that_is_always_right_gets_finite_coefficients():
    row = fit_class(np.full(30, 0.5), np.full(30, 20.0), np.ones(30, bool))
    assert np.isfinite(row).all()
    assert np.abs(row).max() < 100


def test_classes_are_fitted_apart():
    """Class 1: of 40 detections at .5 all are right; class 2: too few to tell."""
    cells = [record(9 * n, 8, image_id=image) for image in (1, 2) for n in range(20)]
    truth = truth_of(cells)
    results = [{**cell, "score": 0.5} for cell in cells] + [record(0, 8, label=2, score=0.5)]
    rows = fit_calibration(truth, results)
    assert rows[1] == IDENTITY
    scored = recalibrated(results, rows)
    assert {round(each["score"], 3) for each in scored if each["category_id"] == 2} == {0.5}
    assert all(each["score"] > 0.9 for each in scored if each["category_id"] == 1)


def test_recalibrated_results_come_by_image_and_falling_score_and_leave_the_given_ones_alone():
    results = [record(0, 10, score=0.8), record(20, 40, score=0.6), record(0, 10, score=0.1, image_id=2)]
    scored = recalibrated(results, ((1.0, 2.0, 0.0, -5.0),))  # larger ones are surer
    assert [each["bbox"][0] for each in scored] == [20, 0, 0]
    assert [each["image_id"] for each in scored] == [1, 1, 2]
    assert results[0]["score"] == 0.8
    assert scored[1]["score"] == pytest.approx(expit(logit(0.8) + 2 * np.log(10) - 5))
    assert recalibrated([], ((1.0, 2.0, 0.0, -5.0),)) == []


def test_tensors_get_the_scores_that_results_get():
    rows = ((0.7, -1.0, 0.2, 0.5), (1.3, 0.4, -0.1, 0.0))
    results = [record(0, 30, score=0.9), record(9, 12, label=2, score=0.4), record(5, 7, label=1, score=0.02)]
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in results)]).float()
    labels = torch.tensor([each["category_id"] for each in results])
    scores = torch.tensor([each["score"] for each in results])
    expected = {each["bbox"][0]: each["score"] for each in recalibrated(results, rows)}
    found = calibrated(scores, boxes, labels, rows).tolist()
    assert found == pytest.approx([expected[each["bbox"][0]] for each in results], abs=1e-6)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_cell_has_its_score_at_every_scale_of_the_image(factor):
    """Half as many pixels across, each twice as long."""
    rows = ((0.7, 30.0, -5.0, -40.0), (1.3, 0.4, -0.1, 0.0))
    boxes = torch.tensor([[4.0, 4.0, 24.0, 24.0], [0.0, 8.0, 10.0, 48.0], [0.0, 0.0, 40.0, 50.0]])
    scores, labels = torch.tensor([0.9, 0.4, 0.2]), torch.tensor([1, 2, 1])
    found = calibrated(scores, boxes / factor, labels, rescaled(rows, factor))
    assert torch.allclose(found, calibrated(scores, boxes, labels, rows), atol=1e-5)
    if factor != 1:
        assert not torch.allclose(found, calibrated(scores, boxes / factor, labels, rows), atol=0.01)


def test_certain_scores_empty_boxes_and_no_detections_stay_finite():
    rows = ((2.0, 1.0, 1.0, 1.0),)
    labels = torch.ones(2, dtype=torch.int64)
    scores = calibrated(torch.tensor([0.0, 1.0]), torch.zeros(2, 4), labels, rows)
    assert 0 <= scores[0] < 1e-5
    assert 1 - 1e-5 < scores[1] <= 1
    assert calibrated(torch.zeros(0), torch.zeros(0, 4), labels[:0], rows).shape == (0,)


def test_the_identity_leaves_scores_as_they_are():
    scores = torch.linspace(0.01, 0.99, 50)
    boxes = torch.tensor([[0.0, 0.0, 9.0, 30.0]]).repeat(50, 1)
    found = calibrated(scores, boxes, torch.ones(50, dtype=torch.int64), (IDENTITY,))
    assert torch.allclose(found, scores, atol=1e-6)


def test_reliability_compares_mean_score_and_share_of_true_positives_by_bin():
    scores = np.array([0.1, 0.2, 0.3, 0.8, 1.0])
    hits = np.array([False, False, True, True, True])
    expected = [[0.2, 1 / 3, 3], [0.9, 1, 2]]
    assert np.allclose(reliability(scores, hits, bins=2), expected)
    assert np.allclose(reliability(scores, hits, bins=4), [[0.15, 0, 2], [0.3, 1, 1], [0.9, 1, 2]])
    assert reliability(np.zeros(0), np.zeros(0, bool)).shape == (0, 3)
