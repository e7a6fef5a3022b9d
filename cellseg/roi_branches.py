"""What the branches of the RoI heads say of given RoIs, so that several views of an image can agree in between.

Letters: R RoIs, N detections, M side of a mask, C classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from cellseg.box_stages import LEVELS, BoxStage, refined
from cellseg.mask_quality import MaskQuality

Features = dict[str, Tensor]
Detections = dict[str, Tensor]
Sizes = Sequence[tuple[int, int]]

ROI_STEP = 16
"""masks are predicted for a multiple of so many RoIs"""
MASKS_AT_ONCE = 512
"""of all images of a batch; with 256 channels each takes 2 MB while it is made"""
SMALLEST = 1e-2
"""pixels: detections of a smaller side are dropped"""


class Masks(NamedTuple):
    """What the mask branch says of the detections of one image."""

    probabilities: Tensor  # (N, M, M)
    qualities: Tensor | None  # (N,) expected IoU with the cell, 0..1; None without a head for it


class RoiBranches(RoIHeads):
    """torchvision's RoIHeads in three parts: boxes are `scored`, some are `chosen`, and those are `masked`."""

    bf16 = False

    def __init__(
        self,
        *branches: Any,
        later_stages: Sequence[BoxStage] = (),
        mask_quality: MaskQuality | None = None,
        class_offsets: Tensor | None = None,
        **options: Any,
    ) -> None:
        """With the stages of a cascade after the first, a mask-IoU head, and what training adds to logits (C + 1,)."""
        super().__init__(*branches, **options)
        self.later_stages = nn.ModuleList(later_stages)
        self.mask_quality = mask_quality
        self.class_offsets: Tensor | None
        self.register_buffer("class_offsets", class_offsets, persistent=False)

    def scored(
        self, features: Features, proposals: Sequence[Tensor], sizes_hw: Sizes
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Per image, of its R proposals: probabilities (R, C + 1) and boxes (R, C + 1, 4), not clipped.

        Of a cascade, the mean probability over the stages, and the last stage's boxes.
        """
        probabilities, boxes = [], list(proposals)
        for level, stage in zip(LEVELS, self._stages(), strict=False):
            logits, deltas = self._box_branch(stage, features, boxes, sizes_hw)
            probabilities.append(F.softmax(logits, -1))
            decoded = level.coder.decode_single(deltas, torch.cat(boxes)).view(len(deltas), deltas.shape[1] // 4, 4)
            if self.later_stages:
                boxes = refined(boxes, decoded[:, 0], sizes_hw)
        counts = [len(each) for each in proposals]
        every = decoded.expand(-1, logits.shape[1], -1)
        return list(torch.split(torch.stack(probabilities).mean(dim=0), counts)), list(torch.split(every, counts))

    def chosen(self, probabilities: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Detections:
        """What `scored` says of one image, as `boxes` (N, 4), `scores`, `labels`: over the threshold, after NMS."""
        rois, labels = (probabilities[:, 1:] > self.score_thresh).nonzero(as_tuple=True)
        scores, labels = probabilities[rois, labels + 1], labels + 1
        found = clip_boxes_to_image(boxes[rois, labels], size_hw)
        large = remove_small_boxes(found, SMALLEST)
        found, scores, labels = found[large], scores[large], labels[large]
        kept = batched_nms(found, scores, labels, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": found[kept], "scores": scores[kept], "labels": labels[kept]}

    def masked(
        self, features: Features, boxes: Sequence[Tensor], labels: Sequence[Tensor], sizes_hw: Sizes
    ) -> list[Masks]:
        """Per image, masks of its boxes (N, 4) of classes (N,), network pixels."""
        step = max(1, MASKS_AT_ONCE // len(boxes))
        parts = []
        for start in range(0, max(1, *map(len, boxes)), step):
            here, own = ([each[start : start + step] for each in all_of] for all_of in (boxes, labels))
            parts.append(self._masks_of(features, here, own, sizes_hw))
        return [_joined(each) for each in zip(*parts, strict=True)]

    def _masks_of(
        self, features: Features, boxes: Sequence[Tensor], labels: Sequence[Tensor], sizes_hw: Sizes
    ) -> list[Masks]:
        """As `masked`, of all at once."""
        counts, own = [len(each) for each in boxes], torch.cat(list(labels))
        logits, pooled = self._mask_branch(features, boxes, sizes_hw)
        probabilities = logits.sigmoid()[torch.arange(len(own), device=own.device), own]
        if self.mask_quality is None:
            return [Masks(each, None) for each in torch.split(probabilities, counts)]
        ious = self._quality_branch(pooled, probabilities).gather(1, own[:, None] - 1)[:, 0].clamp(0, 1)
        return [
            Masks(*each) for each in zip(torch.split(probabilities, counts), torch.split(ious, counts), strict=True)
        ]

    def _stages(self) -> list[BoxStage]:
        """All stages, the first one made of torchvision's attributes, whose names pretrained weights have."""
        return [BoxStage(self.box_head, self.box_predictor), *self.later_stages]

    def _box_branch(
        self, stage: BoxStage, features: Features, boxes: Sequence[Tensor], sizes_hw: Sizes
    ) -> tuple[Tensor, Tensor]:
        """Class logits and box deltas of the RoIs of all images."""
        pooled = self.box_roi_pool(features, list(boxes), list(sizes_hw))
        with torch.autocast(pooled.device.type, torch.bfloat16, enabled=self.bf16):
            logits, deltas = stage(pooled)
        return logits.float(), deltas.float()

    def _mask_branch(self, features: Features, boxes: Sequence[Tensor], sizes_hw: Sizes) -> tuple[Tensor, Tensor]:
        """Mask logits (N, C + 1, M, M) of the RoIs of all images, and the features that they are made of."""
        pooled = self.mask_roi_pool(features, list(boxes), list(sizes_hw))
        with torch.autocast(pooled.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.mask_predictor(self.mask_head(self._padded(pooled)))[: len(pooled)]
        return logits.float(), pooled

    def _quality_branch(self, pooled: Tensor, probabilities: Tensor) -> Tensor:
        """Expected IoU (N, C) of masks (N, M, M)."""
        assert self.mask_quality is not None
        with torch.autocast(pooled.device.type, torch.bfloat16, enabled=self.bf16):
            ious: Tensor = self.mask_quality(self._padded(pooled), self._padded(probabilities))[: len(pooled)]
        return ious.float()

    def _padded(self, values: Tensor) -> Tensor:
        """(N, …) with zeros added: a CPU keeps code for every number of RoIs that it meets, some MB each."""
        return values if self.training else F.pad(values, (0, 0) * (values.ndim - 1) + (0, -len(values) % ROI_STEP))


def _joined(parts: Sequence[Masks]) -> Masks:
    """The masks of one image that were made one part after the other."""
    probabilities, qualities = zip(*parts, strict=True)
    return Masks(torch.cat(probabilities), None if qualities[0] is None else torch.cat(qualities))


def owned(found: Detections, core: Tensor) -> Detections:
    """The detections whose centres lie in the core (4,)."""
    kept = centred_in(found["boxes"], core)
    return {name: values[kept] for name, values in found.items()}


def centred_in(boxes_xyxy: Tensor, core: Tensor) -> Tensor:
    """Which boxes (N, 4) have their centres in the core (4,) xyxy, half-open, (N,) bool."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    return ((centres >= core[:2]) & (centres < core[2:])).all(dim=1)


def with_masks(found: Detections, masks: Masks) -> Detections:
    """Detections with `masks`, and `qualities` where there are any."""
    qualities = {} if masks.qualities is None else {"qualities": masks.qualities}
    return {**found, "masks": masks.probabilities, **qualities}
