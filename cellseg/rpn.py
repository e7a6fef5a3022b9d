"""The region proposal network: proposals of all levels, and its losses without a matrix of anchors x cells.

Letters: B images, A anchors of an image, K anchors that a step looks at.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from cellseg.distributed import mean_count
from cellseg.label_maps import NetworkTarget
from cellseg.matching import IGNORED, Grid, balanced, match

Losses = dict[str, Tensor]


class CellRpnHead(RPNHead):
    """torchvision's RPN head, its convolutions in bfloat16 where asked and its output in float32."""

    bf16 = False

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and box deltas per level."""
        with torch.autocast(x[0].device.type, torch.bfloat16, enabled=self.bf16):
            objectness, deltas = super().forward(x)
        return [each.float() for each in objectness], [each.float() for each in deltas]


class Said(NamedTuple):
    """What the head says of the anchors of all levels."""

    objectness: Tensor  # (B, A) logits
    deltas: Tensor  # (B, A, 4)
    anchors: Tensor  # (A, 4)
    per_level: list[int]  # how many of A


class CellRPN(RegionProposalNetwork):
    """torchvision's RPN that decodes only the anchors it proposes, and matches cells by where they lie."""

    def forward(
        self, images: ImageList, features: Mapping[str, Tensor], targets: Sequence[NetworkTarget] | None = None
    ) -> tuple[list[Tensor], Losses]:
        """Proposals (…, 4) per image, and in training loss_objectness and loss_rpn_box_reg."""
        said = self._said(images, features)
        proposals, _ = self._proposals(said, images.image_sizes)
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("rpn: expected targets in training, got None")
        grids = self._grids(images, list(features.values()))
        return proposals, self._losses(said.objectness, said.deltas, said.anchors, grids, targets)

    def scored(self, images: ImageList, features: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Proposals (R, 4) and their probability (R,) to be a cell, per image, the surest first."""
        return self._proposals(self._said(images, features), images.image_sizes)

    def _said(self, images: ImageList, features: Mapping[str, Tensor]) -> Said:
        maps, count = list(features.values()), len(images.image_sizes)
        objectness, deltas = self.head(maps)
        anchors = self.anchor_generator(images, maps)[0]  # the same for all images of a batch
        per_level = [each[0].numel() for each in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        return Said(objectness.view(count, -1), deltas.view(count, -1, 4), anchors, per_level)

    def _proposals(self, said: Said, sizes_hw: list[tuple[int, int]]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level the anchors of the highest objectness, decoded, clipped and thinned out by NMS."""
        objectness, deltas = said.objectness.detach(), said.deltas.detach()
        best = self._get_top_n_idx(objectness, said.per_level)  # (B, K)
        images = torch.arange(len(best), device=best.device)[:, None]
        chosen = self.box_coder.decode(deltas[images, best].flatten(0, 1), [said.anchors[best].flatten(0, 1)])
        kept = [min(count, self.pre_nms_top_n()) for count in said.per_level]
        boxes, scores = self.filter_proposals(chosen.view(len(best), -1, 4), objectness[images, best], sizes_hw, kept)
        return list(boxes), list(scores)

    def _grids(self, images: ImageList, maps: Sequence[Tensor]) -> list[Grid]:
        height, width = images.tensors.shape[-2:]
        sizes = [(each.shape[-2], each.shape[-1]) for each in maps]
        return [
            Grid(shapes, size, (height // size[0], width // size[1]))
            for shapes, size in zip(self.anchor_generator.cell_anchors, sizes, strict=True)
        ]

    def _losses(
        self,
        objectness: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        grids: Sequence[Grid],
        targets: Sequence[NetworkTarget],
    ) -> Losses:
        """Sums over the sampled anchors of all images, by how many those are."""
        scores, truths, moves, aims, weights = [], [], [], [], []
        sampler = self.fg_bg_sampler
        for image, target in enumerate(targets):
            boxes = torch.cat([target["boxes"], target["ignored"], anchors.new_tensor([[0.0, 0.0, 1.0, 1.0]])])
            matches = match(grids, boxes[:-1])
            left_out = (matches == IGNORED) | (matches >= len(target["boxes"]))
            labels = torch.where(left_out, -1, (matches >= 0).long())
            looked_at, chosen = balanced(
                labels, sampler.batch_size_per_image, sampler.positive_fraction, target["generator"]
            )
            scores.append(objectness[image, looked_at])
            truths.append(labels[looked_at].float())
            moves.append(deltas[image, looked_at])
            aims.append(self.box_coder.encode_single(boxes[matches[looked_at]], anchors[looked_at]))
            weights.append(chosen.float())
        truth, weight = torch.cat(truths), torch.cat(weights)
        count = mean_count(weight.sum())
        classified = F.binary_cross_entropy_with_logits(torch.cat(scores), truth.clamp(min=0), weight, reduction="sum")
        moved = F.smooth_l1_loss(torch.cat(moves), torch.cat(aims), beta=1 / 9, reduction="none").sum(dim=1)
        return {
            "loss_objectness": classified / count,
            "loss_rpn_box_reg": (moved * (weight * (truth > 0))).sum() / count,
        }
