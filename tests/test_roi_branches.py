from dataclasses import replace

import pytest
import torch

from cellseg import roi_branches
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


@pytest.mark.parametrize("mask_quality", [False, True])
def test_masks_are_made_some_at_a_time_and_are_as_those_made_at_once(micro, monkeypatch, mask_quality):
    model = seeded(replace(micro, mask_quality=mask_quality)).eval()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator) for _ in range(3)]
    batch, _ = model.transform(images)
    corners = [torch.rand(count, 2, generator=generator) * 30 for count in (9, 0, 4)]
    boxes = [torch.cat([each, each + 20], dim=1) for each in corners]
    labels = [torch.arange(len(each)) % 4 + 1 for each in boxes]
    counts = []
    model.roi_heads.mask_roi_pool.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))

    def masks():
        return model.roi_heads.masked(model.backbone(batch.tensors), boxes, labels, batch.image_sizes)

    at_once = masks()
    monkeypatch.setattr(roi_branches, "MASKS_AT_ONCE", 9)
    in_parts = masks()
    assert counts == [13, 6, 4, 3]  # three of each image at most
    for one, other in zip(at_once, in_parts, strict=True):
        assert torch.allclose(one.probabilities, other.probabilities, atol=1e-4)
        assert (one.qualities is None) == (other.qualities is None) == (not mask_quality)
        if mask_quality:
            assert torch.allclose(one.qualities, other.qualities, atol=1e-3)
