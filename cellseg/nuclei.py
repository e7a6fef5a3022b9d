"""Shapes, places and chromatin of the four procedural types of nuclei.

Letters: H height, W width of the canvas; h, w of the window around one cell. Lengths are pixels, amounts of stain are
absorbances (natural logarithm). The canvas exceeds the image by MARGIN on every side, so that the border cuts cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from cellseg.codes import Array

MARGIN = 64
TRIES = 60


@dataclass(frozen=True)
class Kind:
    """One type of nucleus; a pair is a range, drawn from evenly."""

    name: str
    length: tuple[float, float]
    aspect: tuple[float, float]
    """length / width"""
    body: tuple[float, float]
    """haematoxylin between the clumps"""
    rim: float
    """haematoxylin added along the membrane"""
    grain: float
    """deviation of the haematoxylin inside"""
    grain_size: float
    cytoplasm: tuple[float, float, float]
    """haematoxylin, eosin and blood pigment around the nucleus"""
    nucleoli: tuple[int, int] = (0, 0)
    lobes: tuple[int, int] = (1, 1)
    wobble: float = 0.03
    """deviation of the outline, in radii"""
    dent: float = 0.0
    """largest depth of the notch that makes a bean, in radii"""
    company: float = 0.0
    """probability of touching another cell of its kind"""


KINDS = (  # label 1 and on
    Kind("epithelial", (21, 27), (1.15, 1.5), (0.5, 0.95), 0.6, 0.2, 3.0, (0.42, 0.5, 0), (1, 2), company=0.45),
    Kind("lymphocyte", (12, 16), (1.0, 1.2), (1.7, 2.3), 0.15, 0.3, 3.5, (0.3, 0.3, 0), company=0.6),
    Kind("neutrophil", (18, 22), (1.0, 1.2), (1.6, 2.1), 0.1, 0.15, 3.0, (0.1, 0.75, 0), lobes=(2, 4), company=0.2),
    Kind("macrophage", (34, 44), (1.2, 1.6), (0.4, 0.65), 0.35, 0.28, 1.8, (0.3, 0.3, 0), wobble=0.04, dent=0.45),
)
LARGEST_FIRST = (4, 1, 3, 2)


@dataclass(frozen=True)
class Cell:
    """A nucleus at its place on the canvas."""

    label: int
    radius: float
    center: tuple[int, int]
    window: tuple[slice, slice]
    levels: Array  # (h, w) float32: 0 at the centre, 1 on the membrane
    inside: Array  # (h, w) bool: the pixels that it owns

    @property
    def kind(self) -> Kind:
        """The type that the label names."""
        return KINDS[self.label - 1]


def noise(rng: Generator, size_hw: tuple[int, int], scale: float, octaves: int = 1, stretch: float = 1.0) -> Array:
    """Smooth noise (H, W) float32 of mean 0 and deviation about 1; bumps span the scale, and in x stretch times it."""
    total = np.zeros(size_hw, np.float32)
    for octave in range(octaves):
        step = max(scale / 2**octave, 1.0)
        coarse = rng.standard_normal((int(size_hw[0] / step) + 2, int(size_hw[1] / step / stretch) + 2), np.float32)
        total += 0.6**octave * cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return total


def oval(
    rng: Generator,
    half: int,
    length: float,
    aspect: float,
    *,
    wobble: float = 0.0,
    dent: float = 0.0,
    center: tuple[float, float] = (0.0, 0.0),
    angle: float | None = None,
) -> Array:
    """Levels (2 half + 1, 2 half + 1) float32 of an oval: 0 at its centre, 1 on its edge.

    center (y, x) is counted from the middle; without an angle the oval is turned at random.
    """
    ys, xs = np.mgrid[-half : half + 1, -half : half + 1] - np.array(center)[:, None, None]
    turn = rng.uniform(0, 2 * np.pi) if angle is None else angle
    along, across = xs * np.cos(turn) + ys * np.sin(turn), (ys * np.cos(turn) - xs * np.sin(turn)) * aspect
    around = np.arctan2(across, along)
    edge = 1 - dent * np.exp(-(((around - np.pi / 2) / 0.6) ** 2))
    for order in (2, 3, 4):
        edge += wobble * rng.normal() * np.cos(order * around + rng.uniform(0, 2 * np.pi))
    levels: Array = (np.hypot(along, across) / (length / 2 * edge)).astype(np.float32)
    return levels


def place(size_hw: tuple[int, int], counts: Sequence[int], nests: Array, rng: Generator) -> list[Cell]:
    """Cells that share no pixel: counts per kind, or fewer where no room is left, each centred within the image.

    nests (H, W), the canvas, is high where epithelium grows; lymphocytes avoid it.
    """
    taken = np.zeros(nests.shape, bool)
    scale = rng.uniform(0.93, 1.07)
    cells: list[Cell] = []
    for label in LARGEST_FIRST:
        kind, liking = KINDS[label - 1], -nests if label == 2 else nests
        same: list[Cell] = []
        for _ in range(counts[label - 1]):
            length = scale * rng.uniform(*kind.length)
            levels = _nucleus(kind, length, rng)
            for _ in range(TRIES):
                touching = bool(same) and rng.random() < kind.company
                center = _beside(same, length, rng) if touching else _alone(size_hw, liking, rng)
                cell = _cell_at(label, length, center, levels, taken)
                if _is_inside(center, size_hw) and _is_whole(cell, 0.15 if touching else 0.0):
                    taken[cell.window] |= cell.inside
                    same.append(cell)
                    break
        cells += same
    return cells


def _nucleus(kind: Kind, length: float, rng: Generator) -> Array:
    """Levels (h, w) of one nucleus; several lobes lie on an arc and overlap."""
    lobes = int(rng.integers(*kind.lobes, endpoint=True))
    half = int(length)
    if lobes == 1:
        dent = kind.dent * rng.random()
        return oval(rng, half, length, rng.uniform(*kind.aspect), wobble=kind.wobble, dent=dent)
    angles = rng.uniform(0, 2 * np.pi) + rng.uniform(1.1, 1.35) * np.arange(lobes)
    centers = 0.31 * length * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    sizes = length * rng.uniform(0.42, 0.5, lobes)
    parts = [
        oval(rng, half, size, rng.uniform(*kind.aspect), wobble=kind.wobble, center=(y, x))
        for size, (y, x) in zip(sizes, centers.tolist(), strict=True)
    ]
    levels: Array = np.min(parts, axis=0)
    return levels


def _beside(cells: Sequence[Cell], length: float, rng: Generator) -> tuple[int, int]:
    """A centre (y, x) that lets a cell of the length touch one of the cells; it may lie outside the image."""
    host = cells[int(rng.integers(len(cells)))]
    angle, distance = rng.uniform(0, 2 * np.pi), (host.radius + length / 2) * rng.uniform(0.8, 1.0)
    return int(host.center[0] + distance * np.sin(angle)), int(host.center[1] + distance * np.cos(angle))


def _alone(size_hw: tuple[int, int], liking: Array, rng: Generator) -> tuple[int, int]:
    """The most liked of three random centres (y, x)."""
    spots = rng.integers(0, size_hw, (3, 2)) + MARGIN
    y, x = spots[np.argmax(liking[spots[:, 0], spots[:, 1]])].tolist()
    return y, x


def _cell_at(label: int, length: float, center: tuple[int, int], levels: Array, taken: Array) -> Cell:
    """The cell around a centre, without the pixels that others have taken."""
    half = levels.shape[0] // 2
    y, x = (int(np.clip(c, half, side - half - 1)) for c, side in zip(center, taken.shape, strict=True))
    window = (slice(y - half, y + half + 1), slice(x - half, x + half + 1))
    return Cell(label, length / 2, center, window, levels, (levels < 1) & ~taken[window])


def _is_inside(center: tuple[int, int], size_hw: tuple[int, int]) -> bool:
    """Whether a centre (y, x) on the canvas lies within the image."""
    return all(MARGIN <= c < MARGIN + side for c, side in zip(center, size_hw, strict=True))


def _is_whole(cell: Cell, most_lost: float) -> bool:
    """Whether the cell is in one piece and lost no more than a share of its pixels."""
    if cell.inside.sum() < (1 - most_lost) * (cell.levels < 1).sum():
        return False
    return int(cv2.connectedComponents(cell.inside.astype(np.uint8))[0]) == 2  # background and one piece


def add_cytoplasm(amounts: Array, cell: Cell, rng: Generator) -> None:
    """Lay the cell's body around its nucleus into amounts (3, H, W) of stain, fading outwards."""
    share = 0.75 * np.exp(-((np.clip(cell.levels - 1, 0, None) / 0.4) ** 2))
    foam = 1 + 0.15 * noise(rng, share.shape, 3, 2)
    region = amounts[:, *cell.window]
    region += share * (np.array(cell.kind.cytoplasm)[:, None, None] * foam - region)


def add_nucleus(amounts: Array, cell: Cell, rng: Generator) -> None:
    """Set the cell's pixels in amounts (3, H, W) of stain: body, rim, clumps of chromatin, nucleoli."""
    kind, levels = cell.kind, cell.levels
    chromatin = rng.uniform(*kind.body) + kind.grain * noise(rng, levels.shape, kind.grain_size, 2)
    chromatin += kind.rim * np.exp(-(((levels - 0.92) / 0.14) ** 2))
    ys, xs = np.mgrid[: levels.shape[0], : levels.shape[1]] - levels.shape[0] // 2
    for y, x in rng.normal(0, 0.22 * cell.radius, (int(rng.integers(*kind.nucleoli, endpoint=True)), 2)):
        chromatin += 0.9 * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 3.5)
    stained = np.stack([np.clip(chromatin, 0.15, None), np.full_like(chromatin, 0.3), np.zeros_like(chromatin)])
    amounts[:, *cell.window][:, cell.inside] = stained[:, cell.inside]
