import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from cellseg.anchors import (
    best_ious,
    best_possible_recall,
    by_level,
    fit,
    geometric,
    strides_of,
    symmetric_ratios,
)
from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS, ModelConfig
from cellseg.model import build_model


def boxes_around(side, count=400, extent=256, seed=0):
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.8, 1.25, (count, 2)) * side
    corners = rng.uniform(0, extent - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def test_best_ious_equal_those_of_the_anchors_of_the_built_model():
    sizes, ratios = (9.0, 14.0, 22.0, 35.0), (0.5, 1.0, 2.0)
    config = ModelConfig(
        backbone="resnet18", stages=2, extra_level=False, weights="none", anchor_sizes=sizes, aspect_ratios=ratios
    )
    model = build_model(config).eval()
    images = ImageList(torch.zeros(1, 3, 256, 256), [(256, 256)])
    with torch.no_grad():
        features = list(model.backbone(images.tensors).values())
    (anchors,) = model.rpn.anchor_generator(images, features)
    boxes = boxes_around(20)
    dense = box_iou(torch.tensor(boxes, dtype=torch.float32), anchors).max(dim=1).values
    inside = (boxes[:, 2:] < 240).all(axis=1)  # the grid ends before the image does
    np.testing.assert_allclose(best_ious(boxes, sizes, ratios, strides_of(2))[inside], dense.numpy()[inside], atol=1e-5)


def test_the_default_anchors_miss_small_nuclei_and_fitted_ones_find_them():
    boxes = boxes_around(14)
    default = best_possible_recall(boxes, TORCHVISION_ANCHORS, TORCHVISION_RATIOS, strides_of(5))
    fitted = best_possible_recall(boxes, *fit(boxes, 5, 3), strides_of(5))
    doubled = best_possible_recall(boxes * 2, *fit(boxes * 2, 5, 3), strides_of(5))
    assert default < 0.05
    assert fitted > 0.5
    assert doubled > fitted + 0.2


def test_an_anchor_on_the_grid_has_iou_one():
    assert best_ious(np.array([[4.0, 8.0, 12.0, 16.0]]), (8.0,), (1.0,), (4,)).tolist() == [1.0]


def test_no_box_has_no_recall_and_no_fit():
    assert np.isnan(best_possible_recall(np.empty((0, 4)), (8.0,), (1.0,), (4,)))
    with pytest.raises(ValueError, match="at least one box"):
        fit(np.empty((0, 4)), 3, 2)


def test_sizes_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="each of the 3 levels"):
        by_level((4.0, 8.0), 3)


def test_ratios_are_symmetric():
    assert symmetric_ratios(2) == (0.5, 1.0, 2.0)
    assert symmetric_ratios(1) == (1.0,)
    assert geometric(10, 1.5, 2, 1) == (10.0, 15.0)
