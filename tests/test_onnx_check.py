from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cellseg import onnx_check
from cellseg.config import PredictConfig
from cellseg.model import build_model
from cellseg.onnx_check import Agreement, agreements, painted
from cellseg.onnx_network import OneImage
from cellseg.seams import Detections

EXACT = Agreement((96, 128), 0.05, 200, 0, 0.0, 0.0, 0.0, 0.0)


def cells(*rows):
    """Detections of (x, y, side, label, score), their masks full."""
    return Detections(
        torch.tensor([[x, y, x + side, y + side] for x, y, side, _, _ in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([label for *_, label, _ in rows], dtype=torch.int64),
        torch.tensor([score for *_, score in rows], dtype=torch.float32),
        torch.ones(len(rows), 28, 28),
    )


@pytest.fixture
def compared(monkeypatch):
    """What `agreements` says of an image in which the two find the given cells."""

    def compare(mine, theirs, grey=0.0):
        monkeypatch.setattr(onnx_check, "_by_torch", lambda _network, _image: (mine, grey))
        monkeypatch.setattr(onnx_check, "_by_onnxruntime", lambda _model, _image: theirs)
        network = SimpleNamespace(config=SimpleNamespace(score_threshold=0.0))
        (agreement,) = agreements(None, network, [np.zeros((20, 30, 3), np.uint8)])
        return agreement

    return compare


def test_the_same_cells_in_another_order_do_not_differ(compared):
    rows = [(0, 0, 10, 1, 0.9), (20, 0, 10, 1, 0.8), (20, 0, 10, 2, 0.7)]
    assert compared(cells(*rows), cells(*rows[::-1])) == Agreement((20, 30), 0.0, 3, 0, 0, 0, 0, 0)


def test_the_largest_differences_of_all_cells_are_told(compared):
    mine = cells((0, 0, 10, 1, 0.75), (20, 0, 10, 1, 0.5))
    theirs = cells((0.25, 0, 10, 1, 0.75), (20, 0, 10, 1, 0.625))
    theirs.masks[1, 3, 4] = 0.5
    assert compared(mine, theirs, grey=2.0) == Agreement((20, 30), 0.0, 2, 0, 2.0, 0.25, 0.125, 0.5)


def test_a_cell_of_another_class_or_place_is_found_by_each_alone(compared):
    mine = cells((0, 0, 10, 1, 0.9), (20, 0, 10, 1, 0.8))
    assert compared(mine, cells((0, 0, 10, 2, 0.9), (20, 0, 10, 1, 0.8))).alone == 2
    assert compared(mine, cells((0, 0, 10, 1, 0.9), (15, 0, 10, 1, 0.8))).alone == 2
    assert compared(mine, cells()).alone == 2
    assert compared(cells(), cells()) == Agreement((20, 30), 0.0, 0, 0, 0, 0, 0, 0)


def test_one_cell_in_a_hundred_may_be_found_by_one_alone_and_one_in_any_case():
    assert EXACT.holds
    assert replace(EXACT, alone=2).holds
    assert not replace(EXACT, alone=3).holds
    assert replace(EXACT, cells=5, alone=1).holds
    assert not replace(EXACT, cells=5, alone=2).holds


@pytest.mark.parametrize(("name", "most"), [("grey", 1.0), ("boxes", 0.05), ("scores", 1e-3), ("masks", 0.01)])
def test_a_difference_larger_than_rounding_does_not_hold(name, most):
    assert replace(EXACT, **{name: most}).holds
    assert not replace(EXACT, **{name: most * 1.01}).holds


def test_numbers_that_are_none_do_not_hold():
    assert not replace(EXACT, boxes=float("nan")).holds


def test_where_no_cell_is_found_all_that_the_network_says_is_compared(monkeypatch, micro):
    network = OneImage(build_model(micro).eval(), PredictConfig(zoom=1.0, score_threshold=0.99, detections=5))
    monkeypatch.setattr(onnx_check, "with_threshold", lambda _model, threshold: threshold)
    none = cells()
    some = cells((0, 0, 10, 1, 0.01))
    monkeypatch.setattr(onnx_check, "_by_onnxruntime", lambda model, _image: some if model == 0 else none)
    monkeypatch.setattr(
        onnx_check, "_by_torch", lambda network, _image: (none if network.config.score_threshold else some, 0.0)
    )
    (agreement,) = agreements("exported", network, [np.zeros((20, 30, 3), np.uint8)])
    assert (agreement.score_threshold, agreement.cells) == (0.0, 1)


@pytest.mark.parametrize("median_side", [1.0, 15.0, 40.0, 500.0])
def test_painted_tissue_has_the_sizes_asked_for_and_is_no_plain_surface(median_side):
    images = painted(median_side)
    assert [image.shape for image in images] == [(96, 128, 3), (160, 160, 3), (256, 192, 3)]
    assert all(image.dtype == np.uint8 and image.std() > 5 for image in images)
