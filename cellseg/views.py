"""Views of a tile, turned and resized, and the way from the boxes and masks of one to those of the tile.

Letters: N detections, M side of a mask, h x w size of a tile.
"""

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from cellseg.resampling import network_size


@dataclass(frozen=True)
class View:
    """How a tile is shown: resized, then transposed, then mirrored."""

    transposed: bool = False
    up_down: bool = False
    left_right: bool = False
    zoom: float = 1.0

    def size_of(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which a tile of this size is shown."""
        height, width = network_size(size_hw, self.zoom)
        return (width, height) if self.transposed else (height, width)

    def of(self, image: Tensor) -> Tensor:
        """The view of an image (3, h, w), uint8 where it is not resized and float otherwise, 0..255."""
        size_hw = network_size(image.shape[1:], self.zoom)
        if size_hw != tuple(image.shape[1:]):
            image = F.interpolate(image[None].float(), size_hw, mode="bilinear", antialias=True)[0]
        return self._mirrored(image.mT if self.transposed else image)

    def boxes(self, boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Boxes (…, 4) of a tile of this size where the view shows them."""
        boxes = boxes_xyxy * self._scale(boxes_xyxy, size_hw)
        return self._mirrored_boxes(_transposed(boxes) if self.transposed else boxes, size_hw)

    def boxes_back(self, boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Boxes (…, 4) of the view where they lie in the tile, whose size is given."""
        boxes = self._mirrored_boxes(boxes_xyxy, size_hw)
        return (_transposed(boxes) if self.transposed else boxes) / self._scale(boxes_xyxy, size_hw)

    def masks_back(self, masks: Tensor) -> Tensor:
        """Masks (N, M, M) of boxes of the view, as the tile shows them."""
        masks = self._mirrored(masks)
        return masks.mT if self.transposed else masks

    def _mirrored(self, pixels: Tensor) -> Tensor:
        return pixels.flip([axis for axis, on in ((-2, self.up_down), (-1, self.left_right)) if on])

    def _mirrored_boxes(self, boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
        height, width = self.size_of(size_hw)
        x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
        if self.left_right:
            x1, x2 = width - x2, width - x1
        if self.up_down:
            y1, y2 = height - y2, height - y1
        return torch.stack([x1, y1, x2, y2], dim=-1)

    def _scale(self, boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """View pixels per tile pixel, (4,) xyxy."""
        height, width = network_size(size_hw, self.zoom)
        return boxes_xyxy.new_tensor([width / size_hw[1], height / size_hw[0]] * 2)


VIEWS = tuple(View(*each) for each in product((False, True), repeat=3))
"""all flips and quarter turns; the first 1, 2, 4 are groups too: an image and its mirror image are seen alike"""


def _transposed(boxes_xyxy: Tensor) -> Tensor:
    return boxes_xyxy[..., [1, 0, 3, 2]]
