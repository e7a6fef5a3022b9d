"""RoI heads of Mask R-CNN whose mask targets are sampled from label maps.

Letters: P positive RoIs of one image, M side of a mask, C classes, H x W size of the label maps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference

from cellseg.label_maps import Target

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


def mask_loss(logits: Tensor, labels: Sequence[Tensor], mask_shares: Sequence[Tensor]) -> Tensor:
    """Mean binary cross entropy of the logits (P, C + 1, M, M) of each RoI's own class; 0 without a positive RoI."""
    if not len(logits):
        return logits.sum() * 0
    classes, shares = torch.cat(list(labels)), torch.cat(list(mask_shares))
    own = logits[torch.arange(len(logits), device=logits.device), classes]
    return F.binary_cross_entropy_with_logits(own, shares)


def centred_in(boxes_xyxy: Tensor, core: Tensor) -> Tensor:
    """Which boxes (N, 4) have their centres in the core (4,) xyxy, half-open, (N,) bool."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    return ((centres >= core[:2]) & (centres < core[2:])).all(dim=1)


class CellRoIHeads(RoIHeads):
    """torchvision's RoIHeads with Targets instead of N full-size masks.

    Targets come with boxes in network pixels (`boxes`) and with the network pixels per map pixel (`map_scale`, xy).
    """

    bf16 = False

    def check_targets(self, targets: list[Target] | None) -> None:
        """Accept Targets: torchvision asks for a stack of masks here."""

    def forward(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
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
        targets: list[dict[str, Tensor]],
    ) -> Losses:
        proposals, matched, labels, regression = self.select_training_samples(proposals, targets)
        class_logits, box_regression = self._box_branch(features, proposals, image_shapes)
        classifier, box = fastrcnn_loss(class_logits, box_regression, labels, regression)
        positive = [torch.where(each > 0)[0] for each in labels]
        rois = [each[kept] for each, kept in zip(proposals, positive, strict=True)]
        logits = self._mask_branch(features, rois, image_shapes)
        shares = [
            self._targets_of(target, matched_ids[kept], boxes, logits.shape[-1])
            for target, matched_ids, kept, boxes in zip(targets, matched, positive, rois, strict=True)
        ]
        roi_labels = [each[kept] for each, kept in zip(labels, positive, strict=True)]
        return {"loss_classifier": classifier, "loss_box_reg": box, "loss_mask": mask_loss(logits, roi_labels, shares)}

    @staticmethod
    def _targets_of(target: dict[str, Tensor], matched: Tensor, boxes_xyxy: Tensor, side: int) -> Tensor:
        if not len(matched):  # also an image without any cell, whose targets cannot be indexed
            return boxes_xyxy.new_zeros((0, side, side))
        on_map = boxes_xyxy / target["map_scale"].repeat(2)
        return mask_targets(target["label_maps"], target["labels"][matched], target["ids"][matched], on_map, side)

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
