from dataclasses import replace

import pytest
import torch

from cellseg.config import PredictConfig
from cellseg.model import build_model, set_operating_point


def seeded(config):
    torch.manual_seed(0)
    return build_model(config)


def test_a_cascade_scores_by_the_mean_of_its_stages_and_keeps_the_last_boxes(micro):
    model = seeded(replace(micro, box_stages=2)).eval()
    heads, features = (
        model.roi_heads,
        {"0": torch.zeros(1, micro.fpn_channels, 16, 16), "1": torch.zeros(1, micro.fpn_channels, 8, 8)},
    )
    proposals = [torch.tensor([[0.0, 0.0, 20.0, 20.0]])]
    for number, predictor in enumerate([heads.box_predictor, heads.later_stages[0].predictor], start=1):
        for layer in (predictor.cls_score, predictor.bbox_pred):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        predictor.bbox_pred.bias.data[0] = number  # a tenth of the width to the right, in each stage
        predictor.cls_score.bias.data[number] = 50.0
    (probabilities,), (boxes,) = heads.scored(features, proposals, [(64, 64)])
    assert probabilities[0].tolist() == pytest.approx([0, 0.5, 0.5, 0, 0], abs=1e-6)
    assert boxes[0, 1].tolist() == pytest.approx([4.0, 0.0, 24.0, 20.0])


def test_a_cascade_finds_and_takes_no_proposal(micro):
    model = seeded(replace(micro, box_stages=3)).eval()
    set_operating_point(model, PredictConfig(score_threshold=0.0, detections=10))
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    assert len(model([image])[0]["boxes"]) > 0
    features = model.backbone(model.transform([image])[0].tensors)
    (probabilities,), (boxes,) = model.roi_heads.scored(features, [torch.empty(0, 4)], [(64, 64)])
    assert (probabilities.shape, boxes.shape) == ((0, 5), (0, 5, 4))


def test_masks_are_predicted_for_a_multiple_of_16_rois_and_are_as_for_each_alone(micro):
    """oneDNN keeps code for every batch size that a convolution meets."""
    model = seeded(micro).eval()
    set_operating_point(model, PredictConfig(score_threshold=0.0, detections=19))
    image = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    counts = []
    model.roi_heads.mask_head.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    features = model.backbone(model.transform([image])[0].tensors)
    boxes = model([image])[0]["boxes"]
    together, alone = (model.roi_heads._mask_branch(features, [each], [(70, 90)])[0] for each in (boxes, boxes[:1]))
    assert counts == [32, 32, 16]
    assert (len(boxes), len(together), len(alone)) == (19, 19, 1)
    assert torch.allclose(together[:1], alone, atol=1e-4)
    model.roi_heads.train()._mask_branch(features, [boxes], [(70, 90)])
    assert counts[-1] == 19
