"""An image -> the pixels that a network sees: what `images` and `resampling` do, in tensors alone, to be exported.

Letters: H x W size of an image, h x w at which the network sees it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cellseg.config import PredictConfig

LUMINANCE = (9798 / 2**15, 19235 / 2**15, 3735 / 2**15)
"""of red, green and blue, as OpenCV has them"""
UNIT = 2048
"""by which OpenCV multiplies the weights of an image of bytes, to count in whole numbers"""


def size_of(image: Tensor) -> Tensor:
    """Height and width (2,) float64 of an image (H, W, 3)."""
    return torch.tensor([image.shape[0], image.shape[1]], dtype=torch.float64)


def seen_size(size: Tensor, config: PredictConfig) -> Tensor:
    """Height and width (2,) int64 at which an image is seen, given its own (2,) float64, as `network_size` has them."""
    if config.short_side:
        scale = (config.short_side / size.min()).minimum(config.long_side / size.max())
    else:
        scale = size.new_tensor(1.0 if config.zoom is None else config.zoom)
    return (size * scale).round().clamp(min=1).long()


def seen_pixels(image: Tensor, config: PredictConfig, color: str) -> Tensor:
    """An image (H, W, 3) uint8 as it is seen: (h, w, 3) float32, whole numbers 0..255; grey where color is gray."""
    pixels = image.float()
    if color == "gray":
        grey = (pixels @ pixels.new_tensor(LUMINANCE) + 0.5).floor()
        pixels = grey[:, :, None].expand(-1, -1, 3)
    zoom = 1.0 if config.zoom is None else config.zoom
    if zoom == 1 and not config.short_side:
        return pixels
    size = size_of(image)
    seen = seen_size(size, config)
    factors = size / seen  # of doubles, which the quotient of two lengths would not be in ONNX
    down, across = (_Axis(*each) for each in zip(pixels.shape[:2], seen.tolist(), factors, strict=True))
    if config.short_side:
        return torch.where(seen[0] < size[0], _shrunk(pixels, down, across), _grown(pixels, down, across))
    return _shrunk(pixels, down, across) if zoom < 1 else _grown(pixels, down, across)


class _Axis(NamedTuple):
    """An axis along which an image is resized."""

    old: int
    new: int
    """its lengths"""
    factor: Tensor
    """old pixels a new one"""


def _shrunk(pixels: Tensor, down: _Axis, across: _Axis) -> Tensor:
    """Each pixel the mean of the area that it covers, to whole numbers."""
    return (_covered(down) @ pixels.permute(2, 0, 1) @ _covered(across).T).round().permute(1, 2, 0)


def _covered(axis: _Axis) -> Tensor:
    """Shares (new, old) of the old pixels in each new one."""
    pixels, places = (torch.arange(length, dtype=torch.float64) for length in (axis.old, axis.new))
    begins = (places * axis.factor)[:, None]
    shared = (begins + axis.factor).minimum(pixels + 1) - begins.maximum(pixels)
    return (shared.clamp(min=0) / axis.factor).float()


def _grown(pixels: Tensor, down: _Axis, across: _Axis) -> Tensor:
    """Linear between the centres of pixels, rounded where OpenCV rounds: otherwise one in eight differs by 1."""
    left, right, of_left, of_right = _neighbours(across)
    wide = (pixels[:, left] * of_left[:, None] + pixels[:, right] * of_right[:, None]) / 16  # (H, w, 3)
    above, below, of_above, of_below = _neighbours(down)
    upper, lower = (
        (wide.floor()[rows] * weights[:, None, None] / 2**16).floor()
        for rows, weights in ((above, of_above), (below, of_below))
    )
    return ((upper + lower + 2) / 4).floor().float()


def _neighbours(axis: _Axis) -> tuple[Tensor, ...]:
    """The old pixels before and after the centre of each new one, and their weights in units, float64: (new,) each."""
    centres = ((torch.arange(axis.new, dtype=torch.float64) + 0.5) * axis.factor - 0.5).float()
    before = centres.floor()
    share = centres - before
    places = [(before + step).clamp(0, axis.old - 1).long() for step in (0, 1)]
    return *places, *((each * UNIT).round().double() for each in (1 - share, share))
