"""RoI heads of Mask R-CNN whose mask targets are sampled from label maps.

Letters: R RoIs, P positive ones, M side of a mask, C classes, H x W size of the label maps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.ops import box_iou

from cellseg.distributed import mean_count
from cellseg.label_maps import NetworkTarget
from cellseg.matching import balanced

Features = dict[str, Tensor]
Losses = dict[str, Tensor]
Detections = dict[str, Tensor]

ROI_STEP = 16
"""masks are predicted for a multiple of so many RoIs"""


def mask_targets(label_maps: Tensor, labels: Tensor, ids: Tensor, boxes_xyxy: Tensor, side: int) -> Tensor:
    """Share (P, M, M) float32, 0..1, of cell (labels[p], ids[p]) at the bin centres of boxes (P, 4) in map pixels.

    Bilinear between the centres of the four pixels around a bin centre, so that the 1/2 level lies on the cell's
    outline; pixels beyond the map repeat its border. No mask is resized and none is larger than M x M.
    """
    height, width = label_maps.shape[-2:]
    bins = (torch.arange(side, device=boxes_xyxy.device) + 0.5) / side
    xs = boxes_xyxy[:, 0, None] + bins * (boxes_xyxy[:, 2] - boxes_xyxy[:, 0])[:, None] - 0.5  # (P, M)
    ys = boxes_xyxy[:, 1, None] + bins * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])[:, None] - 0.5
    left, top = xs.floor(), ys.floor()
    right_share, bottom_share = (xs - left)[:, None, :], (ys - top)[:, :, None]
    x0, x1 = (left.long() + k for k in (0, 1))
    y0, y1 = (top.long() + k for k in (0, 1))
    plane = (labels - 1)[:, None, None]

    def inside(rows: Tensor, columns: Tensor) -> Tensor:
        found = label_maps[plane, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
        return (found == ids[:, None, None]).float()  # (P, M, M)

    upper = torch.lerp(inside(y0, x0), inside(y0, x1), right_share.expand(-1, side, -1))
    lower = torch.lerp(inside(y1, x0), inside(y1, x1), right_share.expand(-1, side, -1))
    return torch.lerp(upper, lower, bottom_share.expand(-1, -1, side))


def mask_loss(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Mean binary cross entropy of the logits (P, C + 1, M, M) of each RoI's own class; 0 without a positive RoI."""
    own = logits[torch.arange(len(logits), device=logits.device), labels]
    return F.binary_cross_entropy_with_logits(own, shares, reduction="sum") / mean_count(own.new_full((), own.numel()))


def box_losses(logits: Tensor, deltas: Tensor, labels: Tensor, aims: Tensor) -> tuple[Tensor, Tensor]:
    """Of R RoIs: mean cross entropy (R, C + 1), and smooth L1 of the deltas of each one's own class, also by R."""
    count = mean_count(logits.new_full((), len(labels)))
    own = deltas.view(len(labels), -1, 4)[torch.arange(len(labels), device=labels.device), labels]
    moved = F.smooth_l1_loss(own, aims, beta=1 / 9, reduction="none").sum(dim=1)
    return F.cross_entropy(logits, labels, reduction="sum") / count, (moved * (labels > 0)).sum() / count


class Samples(NamedTuple):
    """The RoIs of one image that a step trains on."""

    boxes: Tensor  # (R, 4) network pixels
    cells: Tensor  # (R,) index of the cell that each finds, or one beyond them
    labels: Tensor  # (R,) class 1..C, or 0 background
    aims: Tensor  # (R, 4) box deltas to the cell


def centred_in(boxes_xyxy: Tensor, core: Tensor) -> Tensor:
    """Which boxes (N, 4) have their centres in the core (4,) xyxy, half-open, (N,) bool."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    return ((centres >= core[:2]) & (centres < core[2:])).all(dim=1)


class CellRoIHeads(RoIHeads):
    """torchvision's RoIHeads with NetworkTargets instead of N full-size masks."""

    bf16 = False

    def forward(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Sequence[NetworkTarget] | None = None,
        cores: Tensor | None = None,
    ) -> tuple[list[Detections], Losses]:
        """Losses in training; detections with `masks` (N, M, M) in their boxes, network pixels, otherwise.

        Masks are made for detections whose centres lie in the cores (images, 4), and the others are left out.
        """
        if self.training:
            if targets is None:
                raise ValueError("roi_heads: expected targets in training, got None")
            return [], self._losses(features, proposals, image_shapes, targets)
        class_logits, box_regression = self._box_branch(features, proposals, image_shapes)
        boxes, scores, labels = self.postprocess_detections(class_logits, box_regression, proposals, image_shapes)
        if cores is not None:
            kept = [centred_in(each, core) for each, core in zip(boxes, cores, strict=True)]
            boxes, scores, labels = (
                [each[owned] for each, owned in zip(values, kept, strict=True)] for values in (boxes, scores, labels)
            )
        logits = self._mask_branch(features, boxes, image_shapes)
        masks = maskrcnn_inference(logits, labels)
        return [
            {"boxes": b, "labels": n, "scores": s, "masks": m[:, 0]}
            for b, n, s, m in zip(boxes, labels, scores, masks, strict=True)
        ], {}

    def _losses(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Sequence[NetworkTarget],
    ) -> Losses:
        samples = [self._samples(*each) for each in zip(proposals, targets, strict=True)]
        labels, aims = torch.cat([each.labels for each in samples]), torch.cat([each.aims for each in samples])
        class_logits, deltas = self._box_branch(features, [each.boxes for each in samples], image_shapes)
        classifier, box = box_losses(class_logits, deltas, labels, aims)
        positive = [Samples(*(values[each.labels > 0] for values in each)) for each in samples]
        logits = self._mask_branch(features, [each.boxes for each in positive], image_shapes)
        shares = [self._shares(target, each, logits.shape[-1]) for target, each in zip(targets, positive, strict=True)]
        mask = mask_loss(logits, torch.cat([each.labels for each in positive]), torch.cat(shares))
        return {"loss_classifier": classifier, "loss_box_reg": box, "loss_mask": mask}

    def _samples(self, proposals: Tensor, target: NetworkTarget) -> Samples:
        """Some of the proposals and cells, each with the cell that it overlaps most; positive from IoU .5 on.

        A proposal that finds an ignored cell is left out.
        """
        nothing = target["boxes"].new_tensor([[0.0, 0.0, 1.0, 1.0]])
        boxes = torch.cat([proposals, target["boxes"]])
        cells = torch.cat([target["boxes"], target["ignored"], nothing])
        ious = torch.cat([box_iou(cells[:-1], boxes), boxes.new_zeros(1, len(boxes))])
        overlaps, found = ious.max(dim=0)
        left_out, background = target["labels"].new_full((len(target["ignored"]),), -1), target["labels"].new_zeros(1)
        labels = torch.cat([target["labels"], left_out, background])[found]
        labels = labels * (overlaps >= self.proposal_matcher.high_threshold)
        sampler = self.fg_bg_sampler
        looked_at, chosen = balanced(
            labels, sampler.batch_size_per_image, sampler.positive_fraction, target["generator"]
        )
        kept = looked_at[chosen]
        aims = self.box_coder.encode_single(cells[found[kept]], boxes[kept])
        return Samples(boxes[kept], found[kept], labels[kept], aims)

    @staticmethod
    def _shares(target: NetworkTarget, positive: Samples, side: int) -> Tensor:
        """Mask targets (P, M, M) of the positive samples of an image."""
        on_map = positive.boxes / target["map_scale"].repeat(2)
        labels, ids = target["labels"][positive.cells], target["ids"][positive.cells]
        return mask_targets(target["label_maps"], labels, ids, on_map, side)

    def _box_branch(
        self, features: Features, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        with torch.autocast(pooled.device.type, torch.bfloat16, enabled=self.bf16):
            logits, regression = self.box_predictor(self.box_head(pooled))
        return logits.float(), regression.float()

    def _mask_branch(self, features: Features, boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        pooled = self.mask_roi_pool(features, boxes, image_shapes)
        count = len(pooled)
        if not self.training:  # a CPU keeps code for every number of RoIs that it meets, some MB each
            pooled = F.pad(pooled, (0, 0, 0, 0, 0, 0, 0, -count % ROI_STEP))
        with torch.autocast(pooled.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.mask_predictor(self.mask_head(pooled))[:count]
        return logits.float()
