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
from torchvision.ops import batched_nms

from cellseg.distributed import mean_count
from cellseg.label_maps import NetworkTarget
from cellseg.matching import IGNORED, Grid, Grids, balanced, keys_of, laid_out, match

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

    _laid_out: tuple[object, Grids] | None = None

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
        return proposals, self._losses(said, self._grids(images, list(features.values())), targets)

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
        decoded = self.box_coder.decode(deltas[images, best].flatten(0, 1), [said.anchors[best].flatten(0, 1)])
        limits = decoded.new_tensor([[width, height, width, height] for height, width in sizes_hw])[:, None]
        boxes = decoded.view(len(best), -1, 4).clamp(min=0).minimum(limits)
        scores = objectness[images, best].sigmoid()
        usable = ((boxes[..., 2:] - boxes[..., :2]) >= self.min_size).all(dim=-1) & (scores >= self.score_thresh)
        levels = torch.cat([best.new_full((min(n, self.pre_nms_top_n()),), k) for k, n in enumerate(said.per_level)])
        proposals, probabilities = [], []
        for of_image, sure, wanted in zip(boxes, scores, usable, strict=True):
            (rows,) = wanted.nonzero(as_tuple=True)
            kept = rows[batched_nms(of_image[rows], sure[rows], levels[rows], self.nms_thresh)[: self.post_nms_top_n()]]
            proposals.append(of_image[kept])
            probabilities.append(sure[kept])
        return proposals, probabilities

    def _grids(self, images: ImageList, maps: Sequence[Tensor]) -> Grids:
        """Laid out anew where the size or the device changes."""
        height, width = images.tensors.shape[-2:]
        sizes = tuple((each.shape[-2], each.shape[-1]) for each in maps)
        key = (height, width, sizes, maps[0].device)
        if self._laid_out is None or self._laid_out[0] != key:
            grids = [
                Grid(shapes, size, (height // size[0], width // size[1]))
                for shapes, size in zip(self.anchor_generator.cell_anchors, sizes, strict=True)
            ]
            self._laid_out = key, laid_out(grids)
        return self._laid_out[1]

    def _losses(self, said: Said, grids: Grids, targets: Sequence[NetworkTarget]) -> Losses:
        """Sums over the sampled anchors of all images, by how many those are."""
        cells = [torch.cat([each["boxes"], each["ignored"]]) for each in targets]
        matches = match(grids, cells)  # (B, A)
        boxes = torch.cat([*cells, said.anchors.new_tensor([[0.0, 0.0, 1.0, 1.0]])])
        left_out = matches == IGNORED
        if any(len(each["ignored"]) for each in targets):
            left_out |= torch.cat([*map(_is_sliver, targets), left_out.new_zeros(1)])[matches]
        labels = torch.where(left_out, -1, (matches >= 0).long())
        keys = keys_of([each["generator"] for each in targets], [labels.shape[1]] * len(targets), labels.device)
        sampler = self.fg_bg_sampler
        looked_at, chosen = balanced(labels, keys, sampler.batch_size_per_image, sampler.positive_fraction)  # (B, K)
        truth, weight = labels.gather(1, looked_at).clamp(min=0).float(), chosen.float()
        images = torch.arange(len(targets), device=looked_at.device)[:, None]
        aims = self.box_coder.encode_single(
            boxes[matches.gather(1, looked_at)].flatten(0, 1), said.anchors[looked_at].flatten(0, 1)
        )
        moves = said.deltas[images, looked_at].flatten(0, 1)
        count = mean_count(weight.sum())
        classified = F.binary_cross_entropy_with_logits(
            said.objectness[images, looked_at], truth, weight, reduction="sum"
        )
        moved = F.smooth_l1_loss(moves, aims, beta=1 / 9, reduction="none").sum(dim=1)
        return {
            "loss_objectness": classified / count,
            "loss_rpn_box_reg": (moved * (weight * truth).flatten()).sum() / count,
        }


def _is_sliver(target: NetworkTarget) -> Tensor:
    """Which of the boxes and then the ignored boxes of an image are ignored, (…,) bool."""
    boxes, ignored = target["boxes"], target["ignored"]
    return torch.arange(len(boxes) + len(ignored), device=boxes.device) >= len(boxes)
