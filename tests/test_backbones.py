import typing
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from cellseg.backbones import build_backbone, norm_of
from cellseg.config import Backbone, ModelConfig


def trained(backbone):
    """The children of the body that are trained, whole or in part."""
    return {name.split(".")[0] for name, each in backbone.body.named_parameters() if each.requires_grad}


def on_meta(config):
    with torch.device("meta"):
        return build_backbone(config)


@pytest.mark.parametrize("name", typing.get_args(Backbone))
def test_every_backbone_gives_maps_at_strides_4_to_64(name):
    features = on_meta(ModelConfig(backbone=name, weights="none"))(torch.zeros(1, 3, 128, 192, device="meta"))
    strides = {level: (128 // each.shape[2], 192 // each.shape[3]) for level, each in features.items()}
    assert strides == {"0": (4, 4), "1": (8, 8), "2": (16, 16), "3": (32, 32), "pool": (64, 64)}
    assert {each.shape[1] for each in features.values()} == {256}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "convnext_tiny"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_fewer_stages_end_at_smaller_strides_and_hold_fewer_layers(name, stages):
    config = ModelConfig(backbone=name, weights="none", stages=stages, extra_level=False, fpn_channels=8)
    shorter, whole = on_meta(config), on_meta(replace(config, stages=4))
    features = shorter(torch.zeros(1, 3, 64, 64, device="meta"))
    assert [64 // each.shape[2] for each in features.values()] == [4, 8, 16][:stages]
    assert len(shorter.body.state_dict()) < len(whole.body.state_dict())


@pytest.mark.parametrize("stages", [0, 5])
def test_other_numbers_of_stages_are_refused(stages):
    with pytest.raises(ValueError, match=rf"model\.stages: expected 1\.\.4, got {stages}"):
        on_meta(ModelConfig(stages=stages))


@pytest.mark.parametrize(
    ("norm", "weights", "kind"),
    [
        ("auto", "none", nn.BatchNorm2d),
        ("auto", "imagenet", FrozenBatchNorm2d),
        ("auto", "some.pt", FrozenBatchNorm2d),
        ("batch", "coco", nn.BatchNorm2d),
        ("frozen", "none", FrozenBatchNorm2d),
        ("group", "none", nn.GroupNorm),
    ],
)
def test_the_norm_of_a_resnet_is_the_one_asked_for(norm, weights, kind):
    config = ModelConfig(backbone="resnet18", norm=norm, weights=weights)
    kinds = {type(each) for each in on_meta(config).body.modules()}
    assert kinds & {nn.BatchNorm2d, FrozenBatchNorm2d, nn.GroupNorm} == {kind}
    assert norm_of(config) == ("group" if kind is nn.GroupNorm else "batch" if kind is nn.BatchNorm2d else "frozen")


@pytest.mark.parametrize(
    ("backbone", "weights", "eps"),
    [("resnet50", "coco", 0.0), ("resnet50_v2", "coco", 1e-5), ("resnet50", "imagenet", 1e-5)],
)
def test_the_first_coco_weights_alone_run_without_an_epsilon(backbone, weights, eps):
    norms = on_meta(ModelConfig(backbone=backbone, weights=weights, norm="frozen")).body.modules()
    assert {each.eps for each in norms if isinstance(each, FrozenBatchNorm2d)} == {eps}


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (5, {"conv1", "layer1", "layer2", "layer3", "layer4"}),
        (4, {"layer1", "layer2", "layer3", "layer4"}),
        (2, {"layer3", "layer4"}),
        (0, set()),
    ],
)
def test_the_last_stages_of_a_resnet_are_trained(stages, expected):
    backbone = on_meta(ModelConfig(backbone="resnet18", weights="imagenet", trainable_stages=stages))
    assert trained(backbone) == expected
    assert all(each.requires_grad for each in backbone.fpn.parameters())


@pytest.mark.parametrize(
    ("stages", "expected"), [(5, "01234567"), (4, "1234567"), (3, "234567"), (2, "4567"), (1, "67"), (0, "")]
)
def test_the_last_stages_of_a_convnext_are_trained_with_their_downsampling(stages, expected):
    backbone = on_meta(ModelConfig(backbone="convnext_tiny", weights="imagenet", trainable_stages=stages))
    assert trained(backbone) == set(expected)


def test_nothing_is_frozen_without_weights():
    backbone = on_meta(ModelConfig(backbone="resnet18", weights="none", trainable_stages=1))
    assert all(each.requires_grad for each in backbone.parameters())
