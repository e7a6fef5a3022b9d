"""RoI heads of Mask R-CNN whose mask targets are sampled from label maps: detections, and in training losses.

Letters: R RoIs of all images, N detections, M side of a mask, C classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cellseg.box_stages import LEVELS, Level, Matched, Truth, box_losses, matched, refined, truth_of
from cellseg.label_maps import NetworkTarget
from cellseg.mask_quality import mask_ious, mask_quality_loss
from cellseg.mask_targets import Masked, mask_loss, mask_targets
from cellseg.matching import balanced, keys_of
from cellseg.roi_branches import Detections, Features, RoiBranches, Sizes, owned, with_masks

Losses = dict[str, Tensor]


class Samples(NamedTuple):
    """The RoIs of a batch that a step trains on, those of the first image first."""

    boxes: Tensor  # (R, 4) network pixels
    images: Tensor  # (R,) int64
    labels: Tensor  # (R,) class 1..C, 0 background, or -1: neither
    ids: Tensor  # (R,) of the cell that each finds, in its label map
    aims_at: Tensor  # (R, 4) the cell's box

    def at(self, chosen: Tensor) -> "Samples":
        """Those that are chosen (R,)."""
        (rows,) = chosen.nonzero(as_tuple=True)
        return Samples(*(values[rows] for values in self))

    def boxes_of(self, images: int) -> list[Tensor]:
        """The boxes of each of so many images."""
        counts = (self.images[:, None] == torch.arange(images, device=self.images.device)).sum(dim=0)
        return list(torch.split(self.boxes, counts.tolist()))


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
        truth = truth_of(targets)
        samples = self._samples(proposals, targets, truth)
        return self._box_losses(features, samples, sizes_hw, truth) | self._mask_losses(
            features, samples.at(samples.labels > 0), sizes_hw, targets
        )

    def _box_losses(self, features: Features, samples: Samples, sizes_hw: Sizes, truth: Truth) -> Losses:
        """The losses of all stages, each on the boxes that the stage before it made."""
        losses: list[tuple[Tensor, Tensor]] = []
        boxes = samples.boxes_of(len(sizes_hw))
        for level, stage in zip(LEVELS, self._stages(), strict=False):
            if losses:
                samples = _matched(boxes, truth, level)
            logits, deltas = self._box_branch(stage, features, boxes, sizes_hw)
            if self.class_offsets is not None:
                logits = logits + self.class_offsets
            aims = level.coder.encode_single(samples.aims_at, samples.boxes)
            classifier, box = box_losses(logits, deltas, samples.labels, aims)
            losses.append((level.weight * classifier, level.weight * box))
            if self.later_stages:
                boxes = refined(boxes, level.coder.decode_single(deltas.detach(), samples.boxes), sizes_hw)
        classifiers, regressions = zip(*losses, strict=True)
        return {"loss_classifier": torch.stack(classifiers).sum(), "loss_box_reg": torch.stack(regressions).sum()}

    def _mask_losses(
        self, features: Features, positive: Samples, sizes_hw: Sizes, targets: Sequence[NetworkTarget]
    ) -> Losses:
        logits, pooled = self._mask_branch(features, positive.boxes_of(len(sizes_hw)), sizes_hw)
        side, labels = logits.shape[-1], positive.labels
        scales = torch.stack([each["map_scale"] for each in targets])[positive.images].repeat(1, 2)
        cells = Masked([each["label_maps"] for each in targets], positive.images, labels, positive.ids)
        boxes = positive.boxes / scales  # in pixels of the label maps
        shares = mask_targets(cells, boxes, side)
        losses = {"loss_mask": mask_loss(logits, labels, shares)}
        if self.mask_quality is None:
            return losses
        drawn = logits.detach().sigmoid()[torch.arange(len(labels), device=labels.device), labels]
        ious = mask_ious(drawn, shares, boxes, cells, positive.aims_at / scales)
        expected = self._quality_branch(pooled, drawn)
        return losses | {"loss_mask_quality": mask_quality_loss(expected, labels, ious)}

    def _samples(self, proposals: Sequence[Tensor], targets: Sequence[NetworkTarget], truth: Truth) -> Samples:
        """Some of the proposals and cells, each with the cell that it overlaps most, but for those that are ignored."""
        candidates = [torch.cat([each, target["boxes"]]) for each, target in zip(proposals, targets, strict=True)]
        boxes = pad_sequence(candidates, batch_first=True)
        found = matched(boxes, truth, LEVELS[0].positive_iou)
        keys = keys_of([each["generator"] for each in targets], list(map(len, candidates)), boxes.device)
        sampler = self.fg_bg_sampler
        looked_at, chosen = balanced(found.labels, keys, sampler.batch_size_per_image, sampler.positive_fraction)
        images, places = chosen.nonzero(as_tuple=True)
        return _taken(boxes, found, images, looked_at[images, places])


def _matched(boxes_xyxy: Sequence[Tensor], truth: Truth, level: Level) -> Samples:
    """All boxes of each image."""
    boxes = pad_sequence(list(boxes_xyxy), batch_first=True)
    there = torch.arange(boxes.shape[1]) < torch.tensor([[len(each)] for each in boxes_xyxy])
    images, rows = (each.to(boxes.device) for each in there.nonzero(as_tuple=True))
    return _taken(boxes, matched(boxes, truth, level.positive_iou), images, rows)


def _taken(boxes: Tensor, found: Matched, images: Tensor, rows: Tensor) -> Samples:
    """Those in some rows of the images."""
    return Samples(boxes[images, rows], images, *(values[images, rows] for values in found))
