"""Mask R-CNN for cells, built from a ModelConfig.

Letters: B images, C cell classes, N cells or detections.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from cellseg.anchors import by_level
from cellseg.backbones import build_backbone
from cellseg.box_stages import LEVELS, BoxStage, class_offsets
from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS, ModelConfig, PredictConfig, TrainConfig
from cellseg.device import computes_in_bf16
from cellseg.label_maps import Target
from cellseg.mask_quality import MaskQuality
from cellseg.matching import HIGH, LOW
from cellseg.roi_branches import Detections, Features
from cellseg.roi_heads import CellRoIHeads, Losses
from cellseg.roi_pool import CellRoiPool
from cellseg.rpn import CellRPN, CellRpnHead
from cellseg.transform import CellTransform
from cellseg.weights import load_pretrained

log = logging.getLogger(__name__)


class CellRCNN(MaskRCNN):
    """torchvision's Mask R-CNN that trains on Targets, and returns detections in network pixels without pasting."""

    bf16 = False

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        seeds: Sequence[int] | None = None,
        cores: Tensor | None = None,
    ) -> Losses | list[Detections]:
        """The losses in training; else per image boxes (N, 4), labels, scores, masks (N, M, M), maybe qualities.

        What an image's losses sample follows from its seed, or from torch's generator where there are no seeds. With
        cores (B, 4) xyxy, network pixels, only detections whose centres lie in their image's core are returned.
        """
        batch, network_targets = self.transform(images, targets, seeds)
        features = self.features(batch)
        proposals, rpn_losses = self.rpn(batch, features, network_targets)
        detections, losses = self.roi_heads(features, proposals, batch.image_sizes, network_targets, cores)
        return {**losses, **rpn_losses} if self.training else detections

    def features(self, batch: ImageList) -> Features:
        """The levels of the pyramid, float32, from the finest."""
        with torch.autocast(batch.tensors.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.backbone(batch.tensors)
        return {name: each.float() for name, each in features.items()}


def build_model(config: ModelConfig, pretrained: bool = True, class_names: Sequence[str] = ()) -> CellRCNN:
    """The network of a config, with its weights loaded unless pretrained is False: those of its classes by their names.

    Raises ValueError where anchors do not fit the levels, for class shares that miss a class where they are needed, or
    over `parameter_limit` trainable parameters.
    """
    backbone = build_backbone(config)
    levels = config.levels
    sizes = config.anchor_sizes or TORCHVISION_ANCHORS[:levels]
    ratios = config.aspect_ratios or TORCHVISION_RATIOS
    anchors = AnchorGenerator(by_level(sizes, levels), (tuple(ratios),) * levels)
    model = CellRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=CellRpnHead(
            config.fpn_channels, anchors.num_anchors_per_location()[0], 2 if config.backbone == "resnet50_v2" else 1
        ),
        **_heads(config),
    )
    model.rpn = _cell_rpn(model, config)
    model.roi_heads = _cell_roi_heads(model, config)
    model.transform = CellTransform(config)
    _refuse_too_many(model, config)
    if pretrained:
        log.info("weights: %s", load_pretrained(model, config, class_names))
    return model


def _heads(config: ModelConfig) -> dict[str, Any]:
    """Box and mask branches, by the names of MaskRCNN's arguments."""
    num_classes = config.num_cell_classes + 1
    levels = min(config.roi_levels, config.stages)
    channels, last = config.fpn_channels, config.mask_channels[-1]
    norm = nn.BatchNorm2d if config.backbone == "resnet50_v2" else None
    first = _box_stage(config)
    return {
        "box_roi_pool": CellRoiPool(levels, 7, samples=2),
        "box_head": first.head,
        "box_predictor": first.predictor,
        "mask_roi_pool": CellRoiPool(levels, config.mask_size // 2, samples=2),
        "mask_head": MaskRCNNHeads(channels, config.mask_channels, dilation=1, norm_layer=norm),
        "mask_predictor": MaskRCNNPredictor(last, last, num_classes),
    }


def _box_stage(config: ModelConfig) -> BoxStage:
    """One stage; those of a cascade move a box alike for all classes, as the next stage needs one box."""
    channels, num_classes = config.fpn_channels, config.num_cell_classes + 1
    head: nn.Module = (
        FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [config.box_head], norm_layer=nn.BatchNorm2d)
        if config.backbone == "resnet50_v2"
        else TwoMLPHead(channels * 49, config.box_head)
    )
    predictor = FastRCNNPredictor(config.box_head, num_classes)
    if config.box_stages > 1:
        predictor.bbox_pred = nn.Linear(config.box_head, 4)
    return BoxStage(head, predictor)


def _mask_quality(config: ModelConfig) -> MaskQuality | None:
    if not config.mask_quality:
        return None
    channels, classes = config.fpn_channels, config.num_cell_classes
    return MaskQuality(channels, config.mask_channels, config.box_head, classes, config.mask_size // 2)


def _class_offsets(config: ModelConfig) -> Tensor | None:
    """What training adds to the class logits. Raises ValueError without a share for each class."""
    if not config.logit_adjustment:
        return None
    shares = config.class_shares or ()
    if len(shares) != config.num_cell_classes or min(shares) <= 0:
        raise ValueError(
            f"model.class_shares: expected a share above 0 for each of {config.num_cell_classes} classes, got "
            f"{shares}; leave it out to take the data's"
        )
    return class_offsets(shares, config.logit_adjustment)


def _cell_rpn(model: MaskRCNN, config: ModelConfig) -> CellRPN:
    """Our RPN around the anchors and the head that the model holds."""
    return CellRPN(
        model.rpn.anchor_generator,
        model.rpn.head,
        fg_iou_thresh=HIGH,
        bg_iou_thresh=LOW,
        batch_size_per_image=config.rpn_batch,
        positive_fraction=config.rpn_positive_fraction,
        pre_nms_top_n={"training": config.rpn_pre_nms, "testing": 1000},
        post_nms_top_n={"training": config.rpn_post_nms, "testing": 1000},
        nms_thresh=config.rpn_nms,
    )


def _cell_roi_heads(model: MaskRCNN, config: ModelConfig) -> CellRoIHeads:
    """Our RoI heads around the branches that the model holds."""
    old = model.roi_heads
    return CellRoIHeads(
        old.box_roi_pool,
        old.box_head,
        old.box_predictor,
        fg_iou_thresh=LEVELS[0].positive_iou,
        bg_iou_thresh=LEVELS[0].positive_iou,
        batch_size_per_image=config.roi_batch,
        positive_fraction=config.roi_positive_fraction,
        bbox_reg_weights=LEVELS[0].coder.weights,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
        mask_roi_pool=old.mask_roi_pool,
        mask_head=old.mask_head,
        mask_predictor=old.mask_predictor,
        later_stages=[_box_stage(config) for _ in range(config.box_stages - 1)],
        mask_quality=_mask_quality(config),
        class_offsets=_class_offsets(config),
    )


def set_operating_point(model: CellRCNN, config: PredictConfig) -> None:
    """Make the model's inference thresholds and caps those of a PredictConfig."""
    model.rpn._pre_nms_top_n["testing"] = config.proposals
    model.rpn._post_nms_top_n["testing"] = config.proposals
    model.roi_heads.score_thresh = config.score_threshold
    model.roi_heads.nms_thresh = config.box_nms
    model.roi_heads.detections_per_img = config.detections or 100


def place(model: CellRCNN, device: torch.device, config: TrainConfig) -> None:
    """Move the model to a device, in bfloat16, channels last and compiled where the config and the device allow it."""
    model.to(device)
    set_bf16(model, config.amp and computes_in_bf16(device))
    if config.channels_last and device.type in ("cuda", "cpu"):
        model.to(memory_format=torch.channels_last)
        model.transform.memory_format = torch.channels_last
    if config.compile:
        model.backbone.compile()


def set_bf16(model: CellRCNN, on: bool) -> None:
    """Run backbone and heads in bfloat16, or not; box decoding, losses and sigmoids stay in float32."""
    model.bf16 = model.rpn.head.bf16 = model.roi_heads.bf16 = on


def trainable_parameters(model: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def _refuse_too_many(model: nn.Module, config: ModelConfig) -> None:
    count = trainable_parameters(model)
    if count > config.parameter_limit:
        raise ValueError(
            f"model: {count:,} trainable parameters, over the limit of {config.parameter_limit:,}; choose a smaller "
            f"backbone, lower --model.trainable-stages, or raise --model.parameter-limit"
        )


def state_of(model: nn.Module) -> Mapping[str, Tensor]:
    """The state_dict on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
