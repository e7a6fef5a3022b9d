"""RoI heads of Mask R-CNN whose mask targets are sampled from label maps: detections, and in training losses.

Letters: R RoIs, N detections, P positive RoIs, M side of a mask, C classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cellseg.box_stages import LEVELS, Level, box_losses, matched, refined
from cellseg.label_maps import NetworkTarget
from cellseg.mask_quality import mask_ious, mask_quality_loss
from cellseg.mask_targets import mask_loss, mask_targets
from cellseg.matching import balanced
from cellseg.roi_branches import Detections, Features, RoiBranches, Sizes, owned, with_masks

Losses = dict[str, Tensor]


class Samples(NamedTuple):
    """The RoIs of one image that a step trains on."""

    boxes: Tensor  # (R, 4) network pixels
    cells: Tensor  # (R,) index of the cell that each finds, or one beyond them
    labels: Tensor  # (R,) class 1..C, 0 background, or -1: neither
    aims_at: Tensor  # (R, 4) the cell's box


class CellRoIHeads(RoiBranches):
    """RoI heads that train on NetworkTargets instead of N full-size masks."""

    def forward(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Sequence[NetworkTarget] | None = None,
        cores: Tensor | None = None,
    ) -> tuple[list[Detections], Losses]:
        """Losses in training; detections with `masks` (N, M, M) in their boxes, network pixels, otherwise.

        Masks are made for detections whose centres lie in the cores (images, 4), and the others are left out. With a
        mask-IoU head detections have `qualities` (N,).
        """
        if self.training:
            if targets is None:
                raise ValueError("roi_heads: expected targets in training, got None")
            return [], self._losses(features, proposals, image_shapes, targets)
        scored = zip(*self.scored(features, proposals, image_shapes), image_shapes, strict=True)
        found = [self.chosen(*each) for each in scored]
        if cores is not None:
            found = [owned(each, core) for each, core in zip(found, cores, strict=True)]
        boxes, labels = ([each[name] for each in found] for name in ("boxes", "labels"))
        return [
            with_masks(each, masks)
            for each, masks in zip(found, self.masked(features, boxes, labels, image_shapes), strict=True)
        ], {}

    def _losses(
        self, features: Features, proposals: list[Tensor], sizes_hw: Sizes, targets: Sequence[NetworkTarget]
    ) -> Losses:
        samples = [self._samples(*each) for each in zip(proposals, targets, strict=True)]
        positive = [Samples(*(values[each.labels > 0] for values in each)) for each in samples]
        return self._box_losses(features, samples, sizes_hw, targets) | self._mask_losses(
            features, positive, sizes_hw, targets
        )

    def _box_losses(
        self, features: Features, samples: Sequence[Samples], sizes_hw: Sizes, targets: Sequence[NetworkTarget]
    ) -> Losses:
        """The losses of all stages, each on the boxes that the stage before it made."""
        losses: list[tuple[Tensor, Tensor]] = []
        boxes = [each.boxes for each in samples]
        for level, stage in zip(LEVELS, self._stages(), strict=False):
            if losses:
                samples = [_matched(*each, level) for each in zip(boxes, targets, strict=True)]
            logits, deltas = self._box_branch(stage, features, boxes, sizes_hw)
            rois, labels, aims_at = (
                torch.cat([getattr(each, name) for each in samples]) for name in ("boxes", "labels", "aims_at")
            )
            if self.class_offsets is not None:
                logits = logits + self.class_offsets
            classifier, box = box_losses(logits, deltas, labels, level.coder.encode_single(aims_at, rois))
            losses.append((level.weight * classifier, level.weight * box))
            if self.later_stages:
                boxes = refined(boxes, level.coder.decode_single(deltas.detach(), rois), sizes_hw)
        classifiers, regressions = zip(*losses, strict=True)
        return {"loss_classifier": torch.stack(classifiers).sum(), "loss_box_reg": torch.stack(regressions).sum()}

    def _mask_losses(
        self, features: Features, positive: Sequence[Samples], sizes_hw: Sizes, targets: Sequence[NetworkTarget]
    ) -> Losses:
        logits, pooled = self._mask_branch(features, [each.boxes for each in positive], sizes_hw)
        labels = torch.cat([each.labels for each in positive])
        per_image = list(zip(targets, positive, strict=True))
        shares = [self._shares(target, each, logits.shape[-1]) for target, each in per_image]
        losses = {"loss_mask": mask_loss(logits, labels, torch.cat(shares))}
        if self.mask_quality is None:
            return losses
        drawn = logits.detach().sigmoid()[torch.arange(len(labels), device=labels.device), labels]
        ious = [
            mask_ious(mask, share, _on_map(each.boxes, target), target, each.cells, _on_map(each.aims_at, target))
            for mask, share, (target, each) in zip(
                torch.split(drawn, [len(each.labels) for each in positive]), shares, per_image, strict=True
            )
        ]
        expected = self._quality_branch(pooled, drawn)
        return losses | {"loss_mask_quality": mask_quality_loss(expected, labels, torch.cat(ious))}

    def _samples(self, proposals: Tensor, target: NetworkTarget) -> Samples:
        """Some of the proposals and cells, each with the cell that it overlaps most, but for those that are ignored."""
        boxes = torch.cat([proposals, target["boxes"]])
        all_of_them = _matched(boxes, target, LEVELS[0])
        sampler = self.fg_bg_sampler
        looked_at, chosen = balanced(
            all_of_them.labels, sampler.batch_size_per_image, sampler.positive_fraction, target["generator"]
        )
        kept = looked_at[chosen]
        return Samples(*(values[kept] for values in all_of_them))

    @staticmethod
    def _shares(target: NetworkTarget, positive: Samples, side: int) -> Tensor:
        """Mask targets (P, M, M) of the positive samples of an image."""
        labels, ids = target["labels"][positive.cells], target["ids"][positive.cells]
        return mask_targets(target["label_maps"], labels, ids, _on_map(positive.boxes, target), side)


def _matched(boxes_xyxy: Tensor, target: NetworkTarget, level: Level) -> Samples:
    return Samples(boxes_xyxy, *matched(boxes_xyxy, target, level.positive_iou))


def _on_map(boxes_xyxy: Tensor, target: NetworkTarget) -> Tensor:
    """Boxes (…, 4) of network pixels in pixels of the label maps."""
    return boxes_xyxy / target["map_scale"].repeat(2)
