"""The networks of the accuracy benchmark's opponents, in plain torchvision."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from cellseg.backbones import build_backbone
from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS
from cellseg.device import computes_in_bf16
from cellseg.recipes import demo

SMALL_ANCHORS = ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))
SLIM_ANCHORS = ((8.0, 14.0), (24.0, 42.0), (74.0, 128.0))
"""the same range, on three levels"""


@dataclass(frozen=True)
class Opponent:
    """One script's settings."""

    network: Literal["published", "plain", "slim"]
    backbone: str = "resnet18"
    """of torchvision's names, with an FPN of 256 channels; slim has that of the recipe demo"""
    crop: int = 256
    """side of a view in network pixels at the Plan's zoom; 0 is whole images as torchvision scales them"""
    short_side: int = 800
    """what whole images are scaled to, as long as their long side has at most 1333 pixels"""
    batch: int = 2
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    """0 is off"""
    turns: bool = True
    """mirror and turn the views"""
    by_size: bool = True
    """show images as often as they have pixels"""
    normalized_before: bool = False
    """normalise the images before the network does it again"""
    detections: int = 500
    """of a whole image, all classes together"""
    score_threshold: float = 0.02
    box_nms: float = 0.5
    proposals: int = 1000
    """kept per level before NMS and per image after it, in training"""
    proposals_asked: int = 2000
    """the same in prediction"""
    roi_batch: int = 64
    """proposals sampled per image for the losses"""
    roi_positive_fraction: float = 0.5
    bf16: bool = True
    """in backbone and heads, where the device computes in it; boxes are decoded in float32"""
    channels_last: bool = True


OPPONENTS = {
    "reference": Opponent(
        network="published",
        crop=0,
        batch=4,
        optimizer="sgd",
        learning_rate=0.005,
        weight_decay=5e-4,
        clip_norm=0.0,
        turns=False,
        by_size=False,
        normalized_before=True,
        detections=100,
        score_threshold=0.5,
        proposals=2000,
        proposals_asked=1000,
        roi_batch=512,
        roi_positive_fraction=0.25,
        bf16=False,
        channels_last=False,
    ),
    "torchvision": Opponent(network="plain"),
    "torchvision-large": Opponent(
        network="plain",
        crop=512,
        batch=8,
        roi_batch=256,
        learning_rate=1e-3,
        detections=2000,
        score_threshold=0.01,
        box_nms=0.4,
    ),
    "torchvision-slim": Opponent(network="slim", learning_rate=1e-3),
}


RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def opponent_of(name: str) -> Opponent | None:
    """The opponent of a name, or with another backbone that the name ends in: `torchvision-resnet101`.

    None for the names of others. Raises ValueError for a backbone that is not known.
    """
    script, with_backbone, depth = name.partition("-resnet")
    opponent, backbone = OPPONENTS.get(script), f"resnet{depth}"
    if opponent is None or not with_backbone:
        return opponent
    if opponent.network == "slim":
        raise ValueError(f"recipe {name}: {script} has the backbone of the recipe demo; leave -{backbone} out")
    if backbone not in RESNETS:
        raise ValueError(f"recipe {name}: expected a backbone of {', '.join(RESNETS)}, got {backbone}")
    return replace(opponent, backbone=backbone)


def build(opponent: Opponent, num_cell_classes: int, device: torch.device) -> MaskRCNN:
    """The opponent's network from scratch, where it runs."""
    parts: dict[str, Callable[[Opponent, int], dict[str, Any]]] = {
        "published": _published,
        "plain": _plain,
        "slim": _slim,
    }
    crop = opponent.crop
    model = MaskRCNN(
        **parts[opponent.network](opponent, num_cell_classes + 1),
        min_size=crop or opponent.short_side,
        max_size=crop or 1333,
        box_detections_per_img=opponent.detections,
        box_score_thresh=opponent.score_threshold,
        box_nms_thresh=opponent.box_nms,
        rpn_pre_nms_top_n_train=opponent.proposals,
        rpn_post_nms_top_n_train=opponent.proposals,
        rpn_pre_nms_top_n_test=opponent.proposals_asked,
        rpn_post_nms_top_n_test=opponent.proposals_asked,
        box_batch_size_per_image=opponent.roi_batch,
        box_positive_fraction=opponent.roi_positive_fraction,
    ).to(device)
    if opponent.channels_last:
        model.to(memory_format=torch.channels_last)
    if opponent.bf16 and computes_in_bf16(device):
        heads = model.roi_heads
        branches = (heads.box_head, heads.box_predictor, heads.mask_head, heads.mask_predictor)
        for part in (model.backbone, model.rpn.head, *branches):
            _compute_in_bf16(part)
    return model


def _published(opponent: Opponent, num_classes: int) -> dict[str, Any]:
    """FPN and heads of maskrcnn_resnet50_fpn_v2, its default anchors, and RoIs from P2 and P3 alone."""
    anchors = AnchorGenerator(tuple((size,) for size in TORCHVISION_ANCHORS), (TORCHVISION_RATIOS,) * 5)
    body = getattr(resnet, opponent.backbone)(weights=None)
    return {
        "backbone": _resnet_fpn_extractor(body, trainable_layers=5, norm_layer=nn.BatchNorm2d),
        "num_classes": num_classes,
        "rpn_anchor_generator": anchors,
        "rpn_head": RPNHead(256, anchors.num_anchors_per_location()[0], conv_depth=2),
        "box_roi_pool": MultiScaleRoIAlign(["0", "1"], 7, 2),
        "box_head": FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=nn.BatchNorm2d),
        "mask_roi_pool": MultiScaleRoIAlign(["0", "1"], 14, 2),
        "mask_head": MaskRCNNHeads(256, [256] * 4, 1, norm_layer=nn.BatchNorm2d),
    }


def _plain(opponent: Opponent, num_classes: int) -> dict[str, Any]:
    """torchvision's own heads, and anchors as small as cells."""
    backbone = resnet_fpn_backbone(
        backbone_name=opponent.backbone, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    anchors = AnchorGenerator(SMALL_ANCHORS, (TORCHVISION_RATIOS,) * 5)
    return {"backbone": backbone, "num_classes": num_classes, "rpn_anchor_generator": anchors}


def _slim(opponent: Opponent, num_classes: int) -> dict[str, Any]:
    """Backbone and heads as narrow as those of the recipe demo, out of torchvision's parts."""
    small = demo().model
    channels, last = small.fpn_channels, small.mask_channels[-1]
    levels = [str(level) for level in range(small.roi_levels)]
    return {
        "backbone": build_backbone(small),
        "rpn_anchor_generator": AnchorGenerator(SLIM_ANCHORS, (TORCHVISION_RATIOS,) * 3),
        "box_roi_pool": MultiScaleRoIAlign(levels, 7, 2),
        "box_head": TwoMLPHead(channels * 49, small.box_head),
        "box_predictor": FastRCNNPredictor(small.box_head, num_classes),
        "mask_roi_pool": MultiScaleRoIAlign(levels, 14, 2),
        "mask_head": MaskRCNNHeads(channels, small.mask_channels, 1),
        "mask_predictor": MaskRCNNPredictor(last, last, num_classes),
    }


def _compute_in_bf16(part: nn.Module) -> None:
    """Autocast one part and give back float32: torchvision decodes boxes in what the RPN head returns."""
    forward = part.forward

    @wraps(forward)
    def autocast(features: Any) -> Any:
        tensor = features if isinstance(features, Tensor) else features[0]
        with torch.autocast(tensor.device.type, torch.bfloat16):
            return _in_float(forward(features))

    part.forward = autocast


def _in_float(outputs: Any) -> Any:
    """Tensors of a dict, list or tuple as float32."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {name: _in_float(each) for name, each in outputs.items()}
    return type(outputs)(_in_float(each) for each in outputs)
