"""Whether onnxruntime finds in an image what PyTorch finds. Letters: H x W size of an image, N cells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from cellseg.codes import Array
from cellseg.images import recolored
from cellseg.onnx_export import IMAGE, OUTPUTS, with_threshold
from cellseg.onnx_network import OneImage
from cellseg.onnx_pixels import seen_pixels
from cellseg.predict import detect_tiles
from cellseg.resampling import network_size, resized
from cellseg.sample import MIXTURES, PIXELS_PER_CELL
from cellseg.seams import Detections
from cellseg.tiles import tiles
from cellseg.tissue import Scene, draw_slide, paint

if TYPE_CHECKING:
    import onnx

SIZES_HW = ((96, 128), (160, 160), (256, 192))
SAMPLE_SIDE = 15.0
"""median side of the boxes of painted cells"""
SAME_IOU = 0.9
"""of two boxes of one class, from which they are of one cell"""
GREY, PIXELS, SCORES, MASKS = 1.0, 0.05, 1e-3, 0.01
"""what two machines may differ by: grey levels of a resized image, pixels of a box, probabilities"""
FEW = 0.01
"""share of the cells that one may find alone: rounding decides where a score or an IoU all but meets its threshold"""


@dataclass(frozen=True)
class Agreement:
    """How far PyTorch and onnxruntime are apart on an image."""

    size_hw: tuple[int, int]
    score_threshold: float
    cells: int
    """that PyTorch finds"""
    alone: int
    """cells that only one of the two finds"""
    grey: float
    """largest difference of the image at network size from the one that `cellseg predict` makes, levels"""
    boxes: float
    """largest difference, image pixels"""
    scores: float
    masks: float
    """largest differences"""

    @property
    def holds(self) -> bool:
        """Whether all differences may be rounding."""
        close = self.grey <= GREY and self.boxes <= PIXELS and self.scores <= SCORES and self.masks <= MASKS
        return close and self.alone <= max(1, FEW * self.cells)

    def __str__(self) -> str:
        return (
            f"{self.size_hw[0]} x {self.size_hw[1]} px: {self.cells} cells over score {self.score_threshold:g}, "
            f"{self.alone} found by one alone; largest differences: boxes {self.boxes:.1g} px, scores "
            f"{self.scores:.1g}, masks {self.masks:.1g}, grey levels {self.grey:g}"
        )


def agreements(model: "onnx.ModelProto", network: OneImage, images: Sequence[Array]) -> list[Agreement]:
    """Of images (H, W, 3) uint8 RGB; where no cell is found in any of them, at a score threshold of 0."""
    found = [_agreement(model, network, image) for image in images]
    if any(each.cells for each in found) or not network.config.score_threshold:
        return found
    everything = OneImage(network.network, replace(network.config, score_threshold=0.0), network.color)
    return agreements(with_threshold(model, 0.0), everything, images)


def painted(median_side: float, sizes_hw: Sequence[tuple[int, int]] = SIZES_HW) -> list[Array]:
    """Made-up tissue (H, W, 3) uint8 RGB with cells of this median side, pixels."""
    rng = np.random.default_rng(0)
    slide = draw_slide(rng)
    scale = float(np.clip(median_side / SAMPLE_SIDE, 0.5, 4))
    images = []
    for size_hw in sizes_hw:
        height, width = network_size(size_hw, 1 / scale)
        cells = height * width / PIXELS_PER_CELL
        image, _ = paint(Scene((height, width), [int(np.ceil(share * cells)) for share in MIXTURES[-1]], slide), rng)
        images.append(resized(image, size_hw))
    return images


def _agreement(model: "onnx.ModelProto", network: OneImage, image: Array) -> Agreement:
    expected, grey = _by_torch(network, image)
    found = _by_onnxruntime(model, image)
    mine, theirs = _pairs(expected, found)
    boxes, scores, masks = (
        float(np.abs((getattr(expected, name)[mine] - getattr(found, name)[theirs]).numpy()).max(initial=0))
        for name in ("boxes", "scores", "masks")
    )
    alone = len(expected.boxes) + len(found.boxes) - 2 * len(mine)
    height, width = image.shape[:2]
    return Agreement(
        (height, width), network.config.score_threshold, len(expected.boxes), alone, grey, boxes, scores, masks
    )


def _by_torch(network: OneImage, image: Array) -> tuple[Detections, float]:
    """What `cellseg predict` finds in one tile, given the network's pixels, and how far those are from its own."""
    config = replace(network.config, tile=0, views=1, zooms=(1.0,))
    (tile,) = tiles(image.shape[:2], config)
    pixels = seen_pixels(torch.from_numpy(image), config, network.color).numpy()
    grey = np.abs(pixels - tile.read(recolored(image, color=network.color))).max()
    (found,) = detect_tiles(network.network, [pixels.astype(np.uint8)], [tile], config)
    return found, float(grey)


def _by_onnxruntime(model: "onnx.ModelProto", image: Array) -> Detections:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(OUTPUTS, {IMAGE: image}), strict=True))
    return Detections(**{name: torch.from_numpy(values) for name, values in found.items()})


def _pairs(first: Detections, second: Detections) -> tuple[Tensor, Tensor]:
    """Which cell of the first is which of the second: those that meet best, each for the other."""
    ious = box_iou(first.boxes, second.boxes) * (first.labels[:, None] == second.labels)
    ious = torch.cat([ious, ious.new_zeros(len(ious), 1)], dim=1)
    ious = torch.cat([ious, ious.new_zeros(1, ious.shape[1])])  # neither may be empty
    theirs, mine = ious.argmax(dim=1), ious.argmax(dim=0)
    rows = torch.arange(len(ious))
    same = (mine[theirs] == rows) & (ious[rows, theirs] >= SAME_IOU)
    return rows[same], theirs[same]
