"""A network as one function of one image, in tensors alone, which is what can be exported.

It says what `predict.detect_tiles` says of an image of one tile. The branches are the network's own; what stands
between them is written anew, without lists of images and without Python numbers that follow from what is found.
Letters: H x W size of the image, h x w of what the network sees, P RoIs, N detections, M side of a mask, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms, remove_small_boxes, roi_align

from cellseg.box_stages import LEVELS
from cellseg.calibration import calibrated
from cellseg.config import PredictConfig
from cellseg.model import CellRCNN, set_operating_point
from cellseg.onnx_pixels import seen_pixels, seen_size, size_of
from cellseg.predict import mask_certainty
from cellseg.roi_branches import SMALLEST, Features
from cellseg.roi_pool import FINEST_STRIDE, CellRoiPool


class OneImage(nn.Module):
    """The cells of an image that is seen as a whole and in one view."""

    def __init__(self, network: CellRCNN, config: PredictConfig, color: str = "rgb") -> None:
        """Around a network in float32, which is set to the operating point of the config; color is the data set's."""
        super().__init__()
        set_operating_point(network, config)
        self.network = network
        self.config = config
        self.color = color
        self.score_threshold: Tensor
        self.register_buffer("score_threshold", torch.tensor(config.score_threshold))  # by its name in the file

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (N, 4), labels (N,), scores (N,) and masks (N, M, M) of an image (H, W, 3) uint8, true RGB.

        By falling score; boxes xyxy in pixels of the image.
        """
        size = size_of(image)
        seen = seen_size(size, self.config)
        limits = seen.flip(0).repeat(2).float()  # xyxy
        features = self._features(seen_pixels(image, self.config, self.color), seen)
        rois = self._proposals(features, limits)
        boxes, labels, scores = self._chosen(*self._scored(features, rois, limits), limits)
        masks, qualities = self._masked(features, boxes, labels)
        boxes = boxes / (seen / size).flip(0).repeat(2).float()
        scores = self._final(scores, boxes, labels, masks, qualities)
        order = scores.argsort(descending=True)
        return boxes[order], labels[order], scores[order], masks[order]

    def _features(self, pixels: Tensor, seen: Tensor) -> Features:
        """The levels of the pyramid, of pixels (h, w, 3) that are padded to whole places of the coarsest."""
        transform = self.network.transform
        stride = transform.divisor
        rows, columns = ((seen + (stride - 1)) // stride).tolist()
        _assumed(rows > 1, columns > 1)
        height, width = pixels.shape[:2]
        normal = (pixels.permute(2, 0, 1) / 255 - transform.mean) / transform.std
        features: Features = self.network.backbone(
            F.pad(normal[None], (0, columns * stride - width, 0, rows * stride - height))
        )
        return features

    def _proposals(self, features: Features, limits: Tensor) -> Tensor:
        """Of each level the anchors of the highest objectness, decoded, clipped and thinned out by NMS, (P, 4)."""
        rpn = self.network.rpn
        boxes, scores = [], []
        for level, (logits, deltas, shapes) in enumerate(
            zip(*rpn.head(list(features.values())), rpn.anchor_generator.cell_anchors, strict=True)
        ):
            objectness = logits[0].permute(1, 2, 0).flatten()  # (A,) by row, column, shape
            moves = deltas[0].unflatten(0, (len(shapes), 4)).permute(2, 3, 0, 1).flatten(0, 2)  # (A, 4)
            best, places = objectness.topk(torch.sym_min(objectness.shape[0], rpn.pre_nms_top_n()))
            anchors = _anchors(logits, shapes, FINEST_STRIDE * 2**level)[places]
            found = _clipped(rpn.box_coder.decode_single(moves[places], anchors), limits)
            large = remove_small_boxes(found, rpn.min_size)
            found, sure = found[large], best[large].sigmoid()
            kept = nms(found, sure, rpn.nms_thresh)
            boxes.append(found[kept])
            scores.append(sure[kept])
        return torch.cat(boxes)[_first(torch.cat(scores).argsort(descending=True), rpn.post_nms_top_n())]

    def _scored(self, features: Features, rois: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """What `RoiBranches.scored` says: probabilities (P, C + 1) and boxes (P, C + 1 or 1, 4)."""
        heads = self.network.roi_heads
        probabilities = []
        for level, stage in zip(LEVELS, heads._stages(), strict=False):
            logits, deltas = stage(_pooled(heads.box_roi_pool, features, rois))
            probabilities.append(logits.softmax(-1))
            boxes = level.coder.decode_single(deltas, rois).unflatten(1, (-1, 4))
            if heads.later_stages:
                clipped = _clipped(boxes[:, 0], limits)
                rois = torch.cat([clipped[:, :2], clipped[:, 2:].maximum(clipped[:, :2] + 1)], dim=1)
        return torch.stack(probabilities).mean(dim=0), boxes.expand(-1, logits.shape[1], -1)

    def _chosen(self, probabilities: Tensor, boxes: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `RoiBranches.chosen` chooses: boxes (N, 4), labels (N,) and scores (N,)."""
        heads = self.network.roi_heads
        rois, classes = (probabilities[:, 1:] > self.score_threshold).nonzero().unbind(1)
        labels = classes + 1
        found, scores = _clipped(boxes[rois, labels], limits), probabilities[rois, labels]
        large = remove_small_boxes(found, SMALLEST)
        found, labels, scores = found[large], labels[large], scores[large]
        beyond = torch.cat([found.flatten(), found.new_zeros(1)]).max() + 1
        kept = _first(nms(found + (labels * beyond)[:, None], scores, heads.nms_thresh), heads.detections_per_img)
        return found[kept], labels[kept], scores[kept]

    def _masked(self, features: Features, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `RoiBranches.masked` says: probabilities (N, M, M), and qualities (N,) where a head tells them."""
        heads = self.network.roi_heads
        pooled = _pooled(heads.mask_roi_pool, features, boxes)
        logits = heads.mask_predictor(heads.mask_head(pooled))
        own = labels[:, None, None, None].expand(-1, 1, logits.shape[2], logits.shape[3])
        masks = logits.gather(1, own)[:, 0].sigmoid()
        if heads.mask_quality is None:
            return masks, None
        return masks, heads.mask_quality(pooled, masks).gather(1, labels[:, None] - 1)[:, 0].clamp(0, 1)

    def _final(self, scores: Tensor, boxes: Tensor, labels: Tensor, masks: Tensor, qualities: Tensor | None) -> Tensor:
        """Scores (N,) as `predict.detect_tiles` makes them of those of the box head."""
        config = self.config
        if config.rescore:
            scores = scores * mask_certainty(masks, config.mask_threshold)
        if config.mask_quality and qualities is not None:
            scores = scores * qualities
        return scores if config.calibration is None else calibrated(scores, boxes, labels, config.calibration)


def _anchors(logits: Tensor, shapes: Tensor, stride: int) -> Tensor:
    """Anchors (A, 4) of a level by row, column, shape: where torchvision's AnchorGenerator lays them."""
    rows, columns = (torch.arange(logits.shape[axis]) * stride for axis in (2, 3))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y, x, y], dim=2)[:, :, None] + shapes).flatten(0, 2)


def _first(values: Tensor, most: int) -> Tensor:
    """At most so many of the values (N,)."""
    first = values[:most]
    _assumed(first.shape[0] <= most)  # torch 2.11 would write a limit that is no int64
    return first


def _clipped(boxes_xyxy: Tensor, limits: Tensor) -> Tensor:
    return boxes_xyxy.clamp(min=0).minimum(limits)


def _pooled(pool: CellRoiPool, features: Features, rois: Tensor) -> Tensor:
    """Features (P, channels, side, side) of RoIs (P, 4), each of the level that the pool finds for it."""
    levels = pool.map_levels([rois])
    numbered = F.pad(rois, (1, 0))  # of image 0
    places, parts = [], []
    for level, (name, scale) in enumerate(zip(pool.featmap_names, pool.scales, strict=True)):
        own = (levels == level).nonzero()[:, 0]
        places.append(own)
        parts.append(roi_align(features[name], numbered[own], pool.output_size, scale, pool.sampling_ratio))
    pooled = torch.cat(parts)[torch.cat(places).argsort()]
    _assumed(pooled.shape[0] > 0)
    return pooled


def _assumed(*facts: bool) -> None:
    """Tells torch.export what it would ask. What it writes does not depend on it, and holds where a fact does not."""
    if torch.compiler.is_exporting():
        for fact in facts:
            torch._check(fact)
