"""Networks and views of a tile that agree on each cell: one RoI is the same cell for all of them.

Letters: R RoIs, N detections, C classes, h x w size of a tile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from cellseg.config import PredictConfig
from cellseg.model import CellRCNN
from cellseg.roi_branches import Detections, Features, Masks, RoiBranches, Sizes, owned, with_masks
from cellseg.views import VIEWS, View


@dataclass(frozen=True)
class Ensemble:
    """Networks that predict together, each on the tiles of the first, resized to the zoom that it was trained at."""

    networks: tuple[CellRCNN, ...]
    points: tuple[PredictConfig, ...]
    """the config of each network's own predictions, which tells its zoom, of images at the scale of the first's"""

    @property
    def stride(self) -> int:
        """The coarsest of all, in pixels of each network."""
        return max(int(each.transform.divisor) for each in self.networks)

    @property
    def device(self) -> torch.device:
        """Where the first network lies."""
        device: torch.device = next(self.networks[0].parameters()).device
        return device

    def doubt(self, config: PredictConfig) -> str:
        """A warning where the config's calibration was fitted to predictions of another kind, or ""."""
        alone = len(self.networks) == 1 and config == self.points[0]
        if alone or config.calibration is None:
            return ""
        return "calibration and pq threshold were fitted to single networks as their config asks them"

    def members(self, config: PredictConfig, size_hw: Sequence[int]) -> "list[Member]":
        """Every network with every view of the tiles of an image of this size."""
        own = [each.scale_of(size_hw) / self.points[0].scale_of(size_hw) for each in self.points]
        return [
            Member(network, replace(view, zoom=zoom * factor))
            for network, zoom in zip(self.networks, own, strict=True)
            for factor in config.zooms
            for view in VIEWS[: config.views]
        ]


def ensemble_of(model: CellRCNN | Ensemble) -> Ensemble:
    """A network as an ensemble of one; an ensemble as it is."""
    return model if isinstance(model, Ensemble) else Ensemble((model,), (PredictConfig(),))


@dataclass(frozen=True)
class Member:
    """A network and how it looks at tiles."""

    network: CellRCNN
    view: View

    def seen(self, images: Sequence[Tensor]) -> "Seen":
        """What the network makes of tiles (3, h, w) uint8 before any RoI."""
        batch, _ = self.network.transform([self.view.of(image) for image in images])
        features = self.network.features(batch)
        proposals, scores = self.network.rpn.scored(batch, features)
        sizes_hw = [(image.shape[1], image.shape[2]) for image in images]
        back = [self.view.boxes_back(*each) for each in zip(proposals, sizes_hw, strict=True)]
        return Seen(self.network.roi_heads, self.view, features, sizes_hw, back, scores)


@dataclass(frozen=True)
class Seen:
    """One network's features of one view of some tiles; boxes go in and come out in pixels of the tiles."""

    heads: RoiBranches
    view: View
    features: Features
    sizes_hw: Sizes
    """of the tiles"""
    proposals: list[Tensor]
    """per tile (…, 4)"""
    objectness: list[Tensor]
    """per tile, of its proposals, 0..1"""

    def scored(self, rois: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per tile, of its RoIs (R, 4): probabilities (R, C + 1) and boxes (R, C + 1, 4)."""
        probabilities, boxes = self.heads.scored(self.features, self._shown(rois), self._shown_sizes)
        return probabilities, [self.view.boxes_back(*each) for each in zip(boxes, self.sizes_hw, strict=True)]

    def masked(self, found: Sequence[Detections]) -> list[Masks]:
        """Per tile, masks of its detections, as the tile shows them."""
        boxes, labels = ([each[name] for each in found] for name in ("boxes", "labels"))
        masks = self.heads.masked(self.features, self._shown(boxes), labels, self._shown_sizes)
        return [Masks(self.view.masks_back(each.probabilities), each.qualities) for each in masks]

    @property
    def _shown_sizes(self) -> Sizes:
        return [self.view.size_of(size) for size in self.sizes_hw]

    def _shown(self, boxes_xyxy: Sequence[Tensor]) -> list[Tensor]:
        return [self.view.boxes(*each) for each in zip(boxes_xyxy, self.sizes_hw, strict=True)]


def found_by(members: Sequence[Member], images: Sequence[Tensor], cores: Tensor) -> list[Detections]:
    """What a network returns for tiles (3, h, w) uint8 and their cores (…, 4), from all members together.

    All members' proposals are put together; probabilities, boxes, masks and qualities of a RoI are their means.
    """
    if len(members) == 1 and members[0].view == View():
        alone: list[Detections] = members[0].network(images, cores=cores)
        return alone
    seen = [member.seen(images) for member in members]
    heads, sizes_hw = seen[0].heads, seen[0].sizes_hw
    rois = _rois(seen, members[0].network.rpn.nms_thresh)
    scored = [each.scored(rois) for each in seen]
    probabilities, boxes = (
        [_mean(of_tile) for of_tile in zip(*each, strict=True)] for each in zip(*scored, strict=True)
    )
    chosen = [heads.chosen(*each) for each in zip(probabilities, boxes, sizes_hw, strict=True)]
    found = [owned(each, core) for each, core in zip(chosen, cores, strict=True)]
    masks = zip(*(each.masked(found) for each in seen), strict=True)
    return [with_masks(each, _mean_masks(of_tile)) for each, of_tile in zip(found, masks, strict=True)]


def _rois(seen: Sequence[Seen], iou: float) -> list[Tensor]:
    """Per tile, the proposals (R, 4) of all members, the surest first, of which no two meet with a higher IoU.

    Their number is not cut: near doubles of small cells, which meet with a lower IoU, would crowd out cells that only
    some members propose. Each member has its own cap.
    """
    rois = []
    for tile in range(len(seen[0].sizes_hw)):
        boxes = torch.cat([each.proposals[tile] for each in seen])
        scores = torch.cat([each.objectness[tile] for each in seen])
        rois.append(boxes[nms(boxes, scores, iou)])
    return rois


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0)


def _mean_masks(masks: Sequence[Masks]) -> Masks:
    """At the finest side of all; qualities of those that tell any."""
    side = max(each.probabilities.shape[-1] for each in masks)
    probabilities = [
        each.probabilities
        if each.probabilities.shape[-1] == side
        else F.interpolate(each.probabilities[:, None], (side, side), mode="bilinear")[:, 0]
        for each in masks
    ]
    qualities = [each.qualities for each in masks if each.qualities is not None]
    return Masks(_mean(probabilities), _mean(qualities) if qualities else None)
