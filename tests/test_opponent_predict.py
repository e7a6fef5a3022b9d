"""How opponents are asked: pixels, zoom, results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from opponent_predict import pixels_of, predicted, set_zoom
from opponents import OPPONENTS, build
from pycocotools import mask as coco_mask
from torch import nn

SLIM = replace(OPPONENTS["torchvision-slim"], proposals_asked=20)
GREY = np.full((40, 60, 3), 51, np.uint8)  # .2


def test_the_published_solution_normalises_twice():
    published = OPPONENTS["reference"]
    model = build(replace(published, short_side=40), 4, torch.device("cpu"))
    seen = model.transform([pixels_of(GREY, published)])[0].tensors[0, :, 0, 0]
    # by hand: ((.2 - .485) / .229 - .485) / .229 = -7.5525 for red
    assert seen[0] == pytest.approx(-7.5525, abs=1e-3)
    once = model.transform([pixels_of(GREY, OPPONENTS["torchvision"])])[0].tensors[0, :, 0, 0]
    assert once[0] == pytest.approx((0.2 - 0.485) / 0.229, abs=1e-4)


@pytest.mark.parametrize("size_hw", [(40, 60), (300, 200), (1000, 1000)])
def test_the_zoom_is_the_same_for_images_of_any_size(size_hw):
    model = build(SLIM, 4, torch.device("cpu")).eval()
    set_zoom(model, size_hw, 1.62)
    (height, width) = model.transform([torch.zeros(3, *size_hw)])[0].image_sizes[0]
    assert height == pytest.approx(size_hw[0] * 1.62, abs=1)
    assert width == pytest.approx(size_hw[1] * 1.62, abs=1)


def test_the_size_of_an_image_decides_under_the_published_solution():
    model = build(OPPONENTS["reference"], 4, torch.device("cpu")).eval()
    assert model.transform([torch.zeros(3, 35, 82)])[0].image_sizes == [(568, 1333)]  # 1333 / 82 times as large


class Found(nn.Module):
    """A network that has found one cell, and one whose mask is empty."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.transform = nn.Module()

    def forward(self, images):
        masks = torch.zeros(2, 1, 40, 60)
        masks[0, 0, 10:14, 20:30] = 0.9
        boxes = torch.tensor([[20.0, 10.0, 30.0, 14.0], [0.0, 0.0, 5.0, 5.0]])
        return [{"boxes": boxes, "labels": torch.tensor([3, 1]), "scores": torch.tensor([0.75, 0.5]), "masks": masks}]


def test_detections_become_coco_results_without_those_that_have_no_pixel():
    (result,) = predicted(Found(), [(7, GREY)], SLIM, zoom=1.0)
    assert (result["image_id"], result["category_id"], result["score"]) == (7, 3, 0.75)
    assert result["bbox"] == [20.0, 10.0, 10.0, 4.0]
    drawn = coco_mask.decode(result["segmentation"])
    assert drawn.sum() == 40
    assert drawn[10:14, 20:30].all()


def test_a_network_just_begun_gives_results_of_the_image_s_own_size():
    torch.manual_seed(0)
    model = build(replace(SLIM, score_threshold=0.0, detections=3), 4, torch.device("cpu"))
    torch.nn.init.constant_(model.roi_heads.mask_predictor.mask_fcn_logits.bias, 5.0)  # a mask fills its box
    results = predicted(model, [(1, GREY)], SLIM, zoom=1.5)
    assert all(result["segmentation"]["size"] == [40, 60] for result in results)
    assert len(results) == 3
