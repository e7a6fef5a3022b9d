"""Paints a procedural H&E image and its label maps: stroma, nuclei, and things that only look like nuclei.

Letters: C classes, H height, W width. Amounts of stain are absorbances (natural logarithm).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from cellseg.codes import Array
from cellseg.nuclei import KINDS, MARGIN, Cell, add_cytoplasm, add_nucleus, noise, oval, place

# Shares of red, green, blue light that haematoxylin, eosin (Ruifrok and Johnston 2001) and blood absorb.
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.10, 0.60, 0.79))


@dataclass(frozen=True)
class Slide:
    """How one slide was stained and scanned."""

    stains: Array  # (3, 3): absorbance of red, green, blue by one unit of haematoxylin, eosin, blood
    light: Array  # (3,): red, green, blue of bare glass
    blur: float
    noise: float


@dataclass(frozen=True)
class Scene:
    """What one image shows."""

    size_hw: tuple[int, int]
    counts: Sequence[int]
    """cells wanted per class; fewer are drawn where no room is left"""
    slide: Slide


@dataclass(frozen=True)
class Decoy:
    """A thing that is dark or purple and no labelled cell; a pair is a range."""

    amounts: tuple[float, float, float]
    strength: tuple[float, float]
    pixels_each: int
    length: tuple[float, float]
    aspect: tuple[float, float]
    softness: float
    """width of its edge, in radii"""
    wobble: float = 0.0
    hollow: float = 0.0
    """how much paler the centre is"""
    along_fibres: bool = False


DECOYS = (
    Decoy((1.0, 0.3, 0.0), (0.7, 1.5), 8000, (24, 36), (4.5, 7.0), 0.25, along_fibres=True),  # fibroblasts
    Decoy((1.0, 0.4, 0.0), (1.2, 2.4), 9000, (3, 9), (1.0, 2.5), 0.15, wobble=0.1),  # debris
    Decoy((1.0, 0.2, 0.0), (0.4, 0.9), 6000, (18, 40), (1.0, 1.6), 0.5),  # nuclei out of focus
    Decoy((0.0, 0.7, 0.8), (0.7, 1.1), 9000, (14, 17), (1.0, 1.15), 0.12, wobble=0.01, hollow=0.4),  # red blood cells
)


def draw_slide(rng: Generator) -> Slide:
    """A random slide: stain strengths, eosin between magenta and red, light, sharpness."""
    stains = np.array(STAINS) * rng.uniform(0.97, 1.03, (3, 3))
    stains[1, 2] += rng.uniform(0.0, 0.3)
    strengths = np.array([rng.uniform(0.75, 1.15), rng.uniform(0.65, 1.3), 1.0])
    return Slide(stains * strengths[:, None], rng.uniform(236, 252, 3), rng.uniform(0.65, 1.05), rng.uniform(1.5, 3.5))


def paint(scene: Scene, rng: Generator) -> tuple[Array, Array]:
    """An image (H, W, 3) uint8 RGB and its label maps (C, H, W) int32; ids count on from class to class, with gaps."""
    size_hw = (scene.size_hw[0] + 2 * MARGIN, scene.size_hw[1] + 2 * MARGIN)
    nests = noise(rng, size_hw, 70)
    fibre_angle = rng.uniform(0, np.pi)
    cells = place(scene.size_hw, scene.counts, nests, rng)
    amounts = _stroma(size_hw, nests, fibre_angle, rng)
    _add_decoys(amounts, fibre_angle, rng)
    for cell in cells:
        add_cytoplasm(amounts, cell, rng)
    for cell in cells:
        add_nucleus(amounts, cell, rng)
    shown = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    return _scan(amounts, scene.slide, rng)[shown], _label_maps(cells, size_hw, rng)[:, *shown]


def _stroma(size_hw: tuple[int, int], nests: Array, fibre_angle: float, rng: Generator) -> Array:
    """Amounts (3, H, W) of haematoxylin, eosin and blood without any cell: purple epithelium, pink fibres, gaps."""
    gaps = np.clip(2.5 * (noise(rng, size_hw, 45, 3) - rng.uniform(1.0, 1.9)), 0, 1)
    epithelium = np.clip(0.5 + nests, 0, 1)
    grain = 0.05 * noise(rng, size_hw, 5, 2)
    eosin = 0.55 + 0.13 * noise(rng, size_hw, 40, 5) + 0.13 * (1 - epithelium) * _fibres(size_hw, fibre_angle, rng)
    haze = 0.16 + 0.18 * epithelium + 0.10 * noise(rng, size_hw, 50, 5)
    amounts = np.stack([haze + grain, eosin + grain, np.zeros_like(haze)])
    stained: Array = np.clip(amounts, 0.02, None) * (1 - 0.92 * gaps)
    return stained


def _fibres(size_hw: tuple[int, int], angle: float, rng: Generator) -> Array:
    """Wavy streaks (H, W) along one direction."""
    height, width = size_hw
    texture = noise(rng, (height + width, height + width), 6, 2, stretch=8)
    ys, xs = np.mgrid[:height, :width]
    along = xs * np.cos(angle) + ys * np.sin(angle) + width  # the turned image lies within the texture
    across = ys * np.cos(angle) - xs * np.sin(angle) + width + 8 * noise(rng, size_hw, 60)
    return np.asarray(
        cv2.remap(
            texture, along.astype(np.float32), across.astype(np.float32), cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT
        )
    )


def _add_decoys(amounts: Array, fibre_angle: float, rng: Generator) -> None:
    """Scatter decoys over amounts (3, H, W), more on some images than on others."""
    height, width = amounts.shape[1:]
    for decoy in DECOYS:
        for _ in range(rng.poisson(rng.uniform(0.3, 1.3) * height * width / decoy.pixels_each)):
            length = rng.uniform(*decoy.length)
            half = int(length)
            angle = fibre_angle + rng.normal(0, 0.25) if decoy.along_fibres else None
            levels = oval(rng, half, length, rng.uniform(*decoy.aspect), wobble=decoy.wobble, angle=angle)
            patch = rng.uniform(*decoy.strength) * (0.5 - 0.5 * np.tanh((levels - 1) / decoy.softness))
            patch *= 1 - decoy.hollow * np.clip(1 - levels, 0, 1)
            y, x = rng.integers(0, (height - 2 * half, width - 2 * half))
            amounts[:, y : y + 2 * half + 1, x : x + 2 * half + 1] += np.array(decoy.amounts)[:, None, None] * patch


def _label_maps(cells: Sequence[Cell], size_hw: tuple[int, int], rng: Generator) -> Array:
    """Label maps (C, H, W) int32 of the canvas; one id in 30 is skipped."""
    label_maps = np.zeros((len(KINDS), *size_hw), np.int32)
    ids = np.cumsum(1 + (rng.random(len(cells)) < 1 / 30))
    for number, cell in zip(ids, sorted(cells, key=lambda cell: cell.label), strict=True):
        label_maps[cell.label - 1][cell.window][cell.inside] = number
    return label_maps


def _scan(amounts: Array, slide: Slide, rng: Generator) -> Array:
    """The image (H, W, 3) uint8 RGB that a scanner sees through the stains (Beer-Lambert), blurred and noisy."""
    absorbance = np.einsum("shw,sc->hwc", amounts, slide.stains)
    image = cv2.GaussianBlur(slide.light * np.exp(-absorbance), (0, 0), slide.blur)
    grain = cv2.GaussianBlur(rng.standard_normal(image.shape, np.float32), (0, 0), 0.6)
    scanned: Array = np.clip(image + 2 * slide.noise * grain, 0, 255).round().astype(np.uint8)
    return scanned
