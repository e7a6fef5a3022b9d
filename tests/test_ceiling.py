from pathlib import Path

import numpy as np
import pytest

from cellseg.ceiling import ap_ceiling, of_all_classes, of_each_class
from cellseg.codes import encode
from cellseg.config import DatasetConfig
from cellseg.dataset import open_dataset
from cellseg.evaluate import score

SHARED = Path(__file__).parents[2] / "shared" / "data"
SIDE = 40


def truth_of(counts):
    """A COCO truth with so many cells (N, C) of one pixel, none of which is that of another."""
    images = [{"id": number, "height": SIDE, "width": SIDE} for number in range(1, len(counts) + 1)]
    categories = [{"id": label, "name": f"class{label}"} for label in range(1, len(counts[0]) + 1)]
    annotations = []
    for image, row in zip(images, counts, strict=True):
        labels = np.repeat(np.arange(1, len(row) + 1), row)
        pixels = [np.ones((1, 1), bool)] * len(labels)
        corners = np.stack(np.divmod(np.arange(len(labels)), SIDE), axis=1)
        for label, code in zip(labels.tolist(), encode(pixels, corners, (SIDE, SIDE)), strict=True):
            annotations.append({"image_id": image["id"], "category_id": label, "segmentation": code})
    return {"images": images, "categories": categories, "annotations": annotations}


def results_of(truth, counted):
    """The first of the cells as results: so many (N, C) of each image and class."""
    left, results = np.array(counted), []
    for cell in truth["annotations"]:
        place = cell["image_id"] - 1, cell["category_id"] - 1
        if left[place] > 0:
            left[place] -= 1
            results.append({**cell, "score": 1.0})
    assert not left.any()
    return results


SCENES = {
    "one class over the cap": [[300]],
    "an image over it and one under it": [[180], [20]],
    "exactly the cap": [[100, 100]],
    "two classes, of which one is over it": [[250, 30], [40, 0]],
    "a class without a cell": [[130, 0, 5]],
    "an image without a cell": [[0, 0], [101, 1]],
    "recall that falls on a step": [[200]],
    "many images": [[120, 7], [160, 300], [3, 99], [101, 0], [0, 250]],
}


@pytest.mark.parametrize("counts", SCENES.values(), ids=SCENES)
def test_the_ceiling_of_the_cap_of_a_class_is_what_the_truth_itself_scores(counts):
    truth, counts = truth_of(counts), np.array(counts)
    scores = score(truth, results_of(truth, counts))
    ceiling = ap_ceiling(of_each_class(counts), counts)
    for label, expected in enumerate(ceiling, start=1):
        if counts[:, label - 1].any():
            figures = scores.per_class[f"class{label}"]
            assert [figures[name] for name in ("AP", "AP50", "AP75")] == pytest.approx([expected] * 3, abs=1e-9)
            assert figures["AP50_uncapped"] == pytest.approx(1)
        else:
            assert np.isnan(expected)
    assert scores.metrics["AP50"] == pytest.approx(np.nanmean(ceiling), abs=1e-9)


@pytest.mark.parametrize("counts", SCENES.values(), ids=SCENES)
def test_the_ceiling_of_the_cap_of_an_image_is_what_its_hundred_cells_score(counts):
    truth, counts = truth_of(counts), np.array(counts)
    counted = of_all_classes(counts)
    assert (counted <= counts).all()
    assert counted.sum(axis=1).tolist() == np.minimum(counts.sum(axis=1), 100).tolist()
    scores = score(truth, results_of(truth, counted))
    assert scores.metrics["AP50"] == pytest.approx(np.nanmean(ap_ceiling(counted, counts)), abs=1e-9)


def test_a_hundred_of_300_cells_give_34_of_101_recalls():
    assert ap_ceiling(np.array([[100]]), np.array([[300]])).tolist() == [34 / 101]  # 0, .01, … .33


def test_where_all_count_the_ceiling_is_one():
    counts = np.array([[99, 3], [100, 1]])
    assert ap_ceiling(of_each_class(counts), counts).tolist() == [1, 1]


def test_the_rarest_class_is_kept_first():
    counts = np.array([[90, 30, 5], [150, 0, 0]])
    assert of_all_classes(counts).tolist() == [[65, 30, 5], [100, 0, 0]]


def test_no_other_choice_of_a_hundred_brings_more_than_a_step_of_recall():
    counts = np.array([[140, 60], [0, 110], [30, 20]])
    best = max(
        np.mean(ap_ceiling(np.array([[first, 100 - first], [0, 100], [30, 20]]), counts)) for first in range(40, 101)
    )
    ours = np.mean(ap_ceiling(of_all_classes(counts), counts))
    assert best - 1 / 101 <= ours <= best


def test_worse_scores_of_true_detections_do_not_beat_the_ceiling():
    truth = truth_of([[150]])
    results = results_of(truth, [[150]])
    shuffled = np.random.default_rng(0).permutation(150) / 150
    found = score(truth, [{**each, "score": float(s)} for each, s in zip(results, shuffled, strict=True)])
    assert found.metrics["AP50"] == pytest.approx(67 / 101)  # recalls 0 to .66 of 100 in 150


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize("name", ["consep", "dsb2018", "monusac"])
def test_real_truth_scores_its_ceiling(name):
    data = open_dataset(SHARED / name, DatasetConfig())
    truth = data.truth()
    scores = score(truth, [{**cell, "score": 1.0} for cell in truth["annotations"]])
    ceiling = ap_ceiling(of_each_class(data.cell_counts), data.cell_counts)
    assert [each["AP50"] for each in scores.per_class.values()] == pytest.approx(ceiling.tolist(), abs=1e-9)
