"""The networks of the accuracy benchmark's opponents: that each is what it is said to be."""

from dataclasses import replace

import pytest
import torch
from ingredients import config_of
from opponents import OPPONENTS, build, opponent_of

from cellseg.backbones import build_backbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def networks():
    return {name: build(opponent, 4, CPU) for name, opponent in OPPONENTS.items()}


def sizes(model):
    return model.rpn.anchor_generator.sizes


def test_the_published_solution_has_the_anchors_that_torchvision_has_by_default(networks):
    assert sizes(networks["reference"]) == ((32,), (64,), (128,), (256,), (512,))
    assert networks["reference"].rpn.anchor_generator.aspect_ratios == ((0.5, 1.0, 2.0),) * 5


def test_the_published_solution_pools_from_two_levels_and_torchvision_from_four(networks):
    for heads, levels in ((networks["reference"].roi_heads, 2), (networks["torchvision"].roi_heads, 4)):
        names = [str(level) for level in range(levels)]
        assert heads.box_roi_pool.featmap_names == heads.mask_roi_pool.featmap_names == names


def test_the_published_solution_keeps_100_detections_over_one_half(networks):
    heads = networks["reference"].roi_heads
    assert (heads.detections_per_img, heads.score_thresh) == (100, 0.5)
    assert (networks["reference"].transform.min_size, networks["reference"].transform.max_size) == ((800,), 1333)


def test_fpn_and_heads_of_the_published_solution_are_those_of_torchvision_s_second_version(networks):
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    theirs = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=5).state_dict()
    ours = networks["reference"].state_dict()
    # its FPN is that of a ResNet-50, whose stages have four times the channels
    theirs, ours = (
        {
            name: len(each) if "fpn.inner" in name else each.shape
            for name, each in state.items()
            if not name.startswith("backbone.body.") and each.ndim
        }
        for state in (theirs, ours)
    )
    assert ours == theirs


def test_torchvision_has_small_anchors_and_many_detections(networks):
    assert sizes(networks["torchvision"]) == ((8,), (16,), (32,), (64,), (128,))
    heads = networks["torchvision"].roi_heads
    assert (heads.detections_per_img, heads.score_thresh) == (500, 0.02)
    assert networks["torchvision"].backbone.out_channels == 256


def test_the_slim_network_is_about_as_small_as_that_of_the_demo(networks):
    parameters = sum(each.numel() for each in networks["torchvision-slim"].parameters())
    assert parameters == pytest.approx(3.4e6, rel=0.05)  # 3,415,563 on consep
    assert networks["torchvision-slim"].backbone.out_channels == 64


def test_the_network_for_a_gpu_is_the_same(networks):
    shapes = [
        {key: each.shape for key, each in networks[name].state_dict().items()}
        for name in ("torchvision-large", "torchvision")
    ]
    assert shapes[0] == shapes[1]


def test_the_network_for_a_gpu_is_asked_for_as_many_cells_as_ours(networks):
    heads = networks["torchvision-large"].roi_heads
    assert (heads.detections_per_img, heads.score_thresh, heads.nms_thresh) == (2000, 0.01, 0.4)


def test_norms_are_trained_as_there_are_no_weights(networks):
    for name in OPPONENTS:
        body = networks[name].backbone.body
        assert isinstance(body.bn1, torch.nn.BatchNorm2d)
        assert all(each.requires_grad for each in networks[name].parameters())


@pytest.mark.parametrize("name", ["torchvision", "reference"])
def test_an_opponent_has_the_backbone_of_the_best_recipe_where_its_name_says_so(name):
    opponent = opponent_of(f"{name}-resnet101")
    theirs, ours = build(opponent, 4, CPU).backbone.body, build_backbone(config_of("best+scratch").model).body
    assert {key: each.shape for key, each in theirs.state_dict().items()} == {
        key: each.shape for key, each in ours.state_dict().items()
    }
    assert all(each.requires_grad for body in (theirs, ours) for each in body.parameters())
    assert replace(opponent, backbone="resnet18") == OPPONENTS[name] == opponent_of(name)


def test_a_name_is_an_opponent_s_or_refused_with_the_backbones_that_there_are():
    assert opponent_of("torchvision-slim") == OPPONENTS["torchvision-slim"]
    assert opponent_of("best+scratch") is opponent_of("best-resnet18") is None
    with pytest.raises(ValueError, match=r"expected a backbone of resnet18, .*resnet152, got resnet7$"):
        opponent_of("torchvision-resnet7")
    with pytest.raises(ValueError, match="torchvision-slim has the backbone of the recipe demo; leave -resnet50 out"):
        opponent_of("torchvision-slim-resnet50")


def test_boxes_are_decoded_in_float32_where_the_rest_is_in_bfloat16(monkeypatch):
    monkeypatch.setattr("opponents.computes_in_bf16", lambda device: True)
    opponent = replace(OPPONENTS["torchvision-slim"], crop=64, proposals=20, proposals_asked=20)
    model = build(opponent, 4, CPU).eval()
    features = list(model.backbone(torch.rand(1, 3, 64, 64)).values())
    assert {each.dtype for each in features} == {torch.float32}
    scores, deltas = model.rpn.head(features)
    assert {each.dtype for each in (*scores, *deltas)} == {torch.float32}
    assert torch.equal(features[0], features[0].bfloat16().float())  # it was computed in bfloat16
    assert model.roi_heads.box_head(torch.rand(2, 64, 7, 7)).dtype == torch.float32
