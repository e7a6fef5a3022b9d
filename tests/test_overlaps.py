from dataclasses import replace

import numpy as np
import pytest

from cellseg import overlaps
from cellseg.codes import decode, encode
from cellseg.config import PredictConfig
from cellseg.label_maps import codes_of, paint
from cellseg.overlaps import settled

CONFIG = PredictConfig(pq_threshold=0.5)


def result(score, label, y, x, height, width, size_hw=(20, 20)):
    (code,) = encode([np.ones((height, width), bool)], np.array([[x, y]]), size_hw)
    return {"score": score, "category_id": label, "segmentation": code}


def drawn(cells, size_hw=(20, 20)):
    """Label maps (4, H, W) of the cells."""
    return paint([cell["segmentation"] for cell in cells], [cell["category_id"] for cell in cells], 4, size_hw)


def test_the_higher_score_wins_a_pixel_also_across_classes():
    low, high = result(0.6, 1, 0, 0, 10, 10), result(0.9, 2, 5, 5, 10, 10)
    for order in ([low, high], [high, low]):
        cells = settled(order, CONFIG)
        assert [cell["score"] for cell in cells] == [0.9, 0.6]
        label_maps = drawn(cells)
        assert [(label_maps == k).sum() for k in (1, 2)] == [100, 75]
        assert (label_maps[1] == 1).sum() == 100
        assert (label_maps[0] == 2).sum() == 75
        assert (label_maps > 0).sum(axis=0).max() == 1


@pytest.mark.parametrize("constants", [(64, 1000), (3, 7)])
def test_redrawn_cells_are_those_of_a_canvas_on_which_the_best_are_painted_last(monkeypatch, constants):
    monkeypatch.setattr(overlaps, "BLOCK", constants[0])
    monkeypatch.setattr(overlaps, "CODES_AT_ONCE", constants[1])
    rng = np.random.default_rng(0)
    numbers = zip(*rng.integers(0, 34, (2, 90)), *rng.integers(1, 9, (2, 90)), strict=True)
    results = [
        result(s, 1 + n % 4, *each, (43, 45))
        for n, (s, each) in enumerate(zip(rng.uniform(0.5, 1, 90), numbers, strict=True))
    ]
    before = [dict(each) for each in results]
    cells = settled(results, CONFIG)
    assert results == before
    rising = sorted(results, key=lambda each: each["score"])
    (canvas,) = paint([each["segmentation"] for each in rising], [1] * 90, 1, (43, 45))
    left = np.unique(canvas[canvas > 0])[::-1]
    assert len(left) < 90  # some are covered wholly
    assert [cell["score"] for cell in cells] == [rising[k - 1]["score"] for k in left]
    assert [cell["category_id"] for cell in cells] == [rising[k - 1]["category_id"] for k in left]
    assert [cell["segmentation"] for cell in cells] == codes_of(canvas)[::-1]


def test_a_covered_cell_vanishes():
    cells = settled([result(0.6, 1, 4, 4, 3, 3), result(0.9, 2, 0, 0, 10, 10)], CONFIG)
    assert [cell["category_id"] for cell in cells] == [2]


def test_cells_under_the_threshold_neither_appear_nor_cover():
    low, high = result(0.74, 2, 0, 0, 9, 9), result(0.75, 1, 0, 0, 5, 5)
    cells = settled([high, low], replace(CONFIG, pq_threshold=0.75))
    assert [cell["category_id"] for cell in cells] == [1]
    assert decode(cells[0]["segmentation"]).sum() == 25


def test_nothing_and_cells_without_a_pixel_settle_to_nothing():
    assert settled([], CONFIG) == []
    assert settled([result(0.9, 1, 3, 3, 0, 0)], CONFIG) == []


def test_a_point_that_is_settled_stays_as_it_is():
    once = settled([result(0.6, 1, 0, 0, 10, 10), result(0.9, 2, 5, 5, 10, 10)], CONFIG)
    assert settled(once, CONFIG) == once
