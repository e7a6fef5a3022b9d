from dataclasses import replace

import pytest
import torch

from cellseg.config import PredictConfig
from cellseg.label_maps import target
from cellseg.mask_quality import MaskQuality, mask_ious, mask_quality_loss
from cellseg.mask_targets import Masked, mask_targets
from cellseg.model import build_model, set_operating_point

CELL = torch.tensor([[10.0, 10.0, 30.0, 30.0]])


def square():
    label_maps = torch.zeros(2, 40, 40, dtype=torch.int32)
    label_maps[1, 10:30, 10:30] = 7
    return target(label_maps.numpy())


def iou_of(roi, probabilities=None):
    cells = Masked([square()["label_maps"]], torch.tensor([0]), torch.tensor([2]), torch.tensor([7]))
    box = torch.tensor([roi])
    shares = mask_targets(cells, box, 28)
    return mask_ious(shares if probabilities is None else probabilities, shares, box, cells, CELL).item()


def test_a_perfect_mask_has_an_iou_of_one():
    assert iou_of([10.0, 10.0, 30.0, 30.0]) == pytest.approx(1, abs=0.02)
    assert iou_of([5.0, 5.0, 35.0, 35.0]) == pytest.approx(1, abs=0.06)  # bins of 1.07 pixels


def test_what_lies_outside_the_roi_is_missing_from_the_mask():
    assert iou_of([10.0, 10.0, 20.0, 30.0]) == pytest.approx(0.5, abs=0.02)


def test_a_mask_that_fills_a_roi_twice_as_large_is_half_right():
    assert iou_of([10.0, 10.0, 30.0, 50.0], torch.ones(1, 28, 28)) == pytest.approx(0.5, abs=0.02)


def test_an_empty_mask_and_a_mask_elsewhere_are_worth_nothing():
    assert iou_of([10.0, 10.0, 30.0, 30.0], torch.zeros(1, 28, 28)) == 0
    assert iou_of([31.0, 31.0, 39.0, 39.0], torch.ones(1, 28, 28)) == 0


def test_the_loss_looks_at_the_own_class_alone_and_is_zero_without_rois():
    expected = torch.tensor([[0.9, 0.1], [0.0, 0.5]], requires_grad=True)
    loss = mask_quality_loss(expected, torch.tensor([1, 2]), torch.tensor([0.9, 0.7]))
    assert loss.item() == pytest.approx(0.02)  # (0 + .2 ** 2) / 2
    nothing = mask_quality_loss(expected[:0], torch.empty(0).long(), torch.empty(0))
    nothing.backward()
    assert nothing.item() == 0


@pytest.mark.parametrize("side", [14, 28])
def test_the_head_takes_masks_of_either_size_and_no_mask(side):
    head = MaskQuality(8, (4, 6), 5, 3, side)
    assert head(torch.zeros(2, 8, side, side), torch.zeros(2, 2 * side, 2 * side)).shape == (2, 3)
    assert head(torch.zeros(0, 8, side, side), torch.zeros(0, 2 * side, 2 * side)).shape == (0, 3)


def test_it_learns_from_a_training_batch(micro, batch_of_two):
    torch.manual_seed(0)
    model = build_model(replace(micro, mask_quality=True)).train()
    losses = model(*batch_of_two, [1, 2])
    assert 0 < losses["loss_mask_quality"].item() < 2
    losses["loss_mask_quality"].backward()
    assert model.roi_heads.mask_quality.output.weight.grad.abs().sum() > 0
    assert model.roi_heads.mask_predictor.mask_fcn_logits.weight.grad is None  # masks are judged, not changed


def test_detections_tell_the_quality_expected_of_their_own_class(micro):
    torch.manual_seed(0)
    model = build_model(replace(micro, mask_quality=True)).eval()
    output = model.roi_heads.mask_quality.output
    torch.nn.init.zeros_(output.weight)
    output.bias.data = torch.tensor([0.1, 0.2, 0.3, 1.7])
    set_operating_point(model, PredictConfig(score_threshold=0.0, detections=40))
    found = model([torch.zeros(3, 64, 64, dtype=torch.uint8)])[0]
    expected = torch.tensor([0.1, 0.2, 0.3, 1.0])[found["labels"] - 1]
    assert len(found["labels"]) > 0
    assert torch.allclose(found["qualities"], expected, atol=0.01)  # bfloat16
