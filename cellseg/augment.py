"""Random views of an image and its label maps; the only importer of albumentations.

Geometry (window, flips, quarter turns) is exact on both; only the image is then resized, and only the image's colours
change. Every transform of every view draws from its own seed: in albumentations 2.0.8 the transforms of a Compose share
one, so that mirrored views would always be mirrored both ways.
"""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from cellseg.codes import Array
from cellseg.config import AugmentConfig
from cellseg.label_maps import boxes_of
from cellseg.resampling import network_size, resized

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it asks the package index otherwise

QUARTER_TURNS = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
"""1, 2 and 3 of them, in the direction of np.rot90"""
Window = tuple[slice, slice]
Paste = Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]
"""(image, label maps) -> both, with something pasted into them"""
RARE, PASTED = 1, 2
"""the streams of random numbers that only some views draw from; the loader draws from stream 0"""


def random_view(
    image: Array,
    label_maps: Array,
    config: AugmentConfig,
    zoom: float,
    seed: np.random.SeedSequence,
    paste: Paste | None = None,
) -> tuple[Array, Array]:
    """A view of image (H, W, 3) uint8 at network size, and the window (C, h, w) of label_maps at native size.

    The same seed gives the same view. Paste sees the window as it is in the image.
    """
    geometry, *photometric = seed.generate_state(1 + len(_recolorings(config))).tolist()
    rng = np.random.default_rng(geometry)
    scale = zoom * float(np.exp(rng.uniform(-1, 1) * np.log(config.zoom_jitter)))
    rows, columns = _window(image.shape[:2], config.crop or 0, scale, rng)
    if config.rare_windows:
        rows, columns = _rare_window((rows, columns), label_maps, config.rare_windows, _stream(seed, RARE))
    image, label_maps = image[rows, columns], label_maps[:, rows, columns]
    if paste:
        image, label_maps = paste(image, label_maps, _stream(seed, PASTED))
    image, label_maps = _mirrored(image, label_maps, config, rng)
    size_hw = network_size(image.shape[:2], scale)
    if config.crop:  # one size for all whole windows: a network on a CPU is slow to meet new shapes
        near = round(scale) + 1
        height, width = (config.crop if abs(side - config.crop) <= near else side for side in size_hw)
        size_hw = height, width
    return _recolored(resized(image, size_hw), config, photometric), np.ascontiguousarray(label_maps)


def _stream(seed: np.random.SeedSequence, number: int) -> np.random.Generator:
    """Random numbers beside those of the seed, which leave it as it is, as `spawn` does not."""
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, number)))


def _window(size_hw: Sequence[int], crop: int, scale: float, rng: np.random.Generator) -> Window:
    """A random window of crop / scale pixels a side; a side that is shorter is taken whole."""
    side = round(crop / scale) if crop else max(size_hw)
    starts = [int(rng.integers(0, max(length - side, 0) + 1)) for length in size_hw]
    rows, columns = (slice(start, start + side) for start in starts)
    return rows, columns


def _rare_window(window: Window, label_maps: Array, probability: float, rng: np.random.Generator) -> Window:
    """The window, or with that probability one of its size with a cell in its middle half, of any class as often."""
    planes = [plane for plane in label_maps if plane.any()] if rng.random() < probability else []
    if not planes:
        return window
    boxes = boxes_of(planes[rng.integers(len(planes))])
    x1, y1, x2, y2 = boxes[rng.integers(len(boxes))].tolist()
    sides = [span.stop - span.start for span in window]
    starts = [
        int(np.clip(round(centre - side * rng.uniform(0.25, 0.75)), 0, max(length - side, 0)))
        for centre, side, length in zip(((y1 + y2) / 2, (x1 + x2) / 2), sides, label_maps.shape[1:], strict=True)
    ]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def _mirrored(image: Array, label_maps: Array, config: AugmentConfig, rng: np.random.Generator) -> tuple[Array, Array]:
    """Both after the same flips and quarter turns; numpy takes 10 times as long to copy an image that is mirrored."""
    left_right, up_down = rng.random(2) < 0.5
    turns = int(rng.integers(4))
    if config.flips and left_right:
        image, label_maps = cv2.flip(image, 1), label_maps[:, :, ::-1]
    if config.flips and up_down:
        image, label_maps = cv2.flip(image, 0), label_maps[:, ::-1]
    if config.turns and turns:
        image, label_maps = cv2.rotate(image, QUARTER_TURNS[turns - 1]), np.rot90(label_maps, turns, (1, 2))
    return np.ascontiguousarray(image), label_maps


def _recolored(image: Array, config: AugmentConfig, seeds: Sequence[int]) -> Array:
    for transform, seed in zip(_recolorings(config), seeds, strict=True):
        transform.set_random_seed(seed)
        image = transform(image=image)["image"]
    return image


@lru_cache(maxsize=8)
def _recolorings(config: AugmentConfig) -> tuple[Any, ...]:
    """The transforms of colour and sharpness that a config turns on, in order of use. Add yours here."""
    if not (config.color_jitter or config.stain_jitter or config.blur or config.noise):
        return ()
    import albumentations as A

    jitter = config.color_jitter
    around = (1 - jitter, 1 + jitter)
    wanted = (
        (
            config.stain_jitter,
            A.HEStain(
                method="random_preset",
                intensity_scale_range=(0.8, 1.2),
                intensity_shift_range=(-0.1, 0.1),
                p=config.stain_jitter,
            ),
        ),
        (jitter, A.ColorJitter(around, around, around, hue=(-jitter / 5, jitter / 5), p=0.8)),
        (config.blur, A.GaussianBlur(sigma_limit=(0.3, 1.2), blur_limit=0, p=config.blur)),
        (config.noise, A.GaussNoise(std_range=(0.01, 0.04), p=config.noise)),
    )
    return tuple(transform for amount, transform in wanted if amount)
