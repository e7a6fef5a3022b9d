"""Cells of other training images, rare classes first, pasted into a view: on its pixels and its label maps alike.

Source: Ghiasi et al., Simple Copy-Paste, arXiv 2012.07177.
Letters: N cells, C classes, H x W size of a view, h x w of a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np

from cellseg.codes import Array
from cellseg.config import AugmentConfig
from cellseg.label_maps import target

RIM = 2
"""pixels around a cell in which it fades into its new background"""
SURROUNDINGS = 8
"""pixels around a patch whose background tells how the stain looks there"""
GAINS = (0.7, 1.4)
"""least and greatest factor by which a channel of a patch is changed to look like its new background"""
TRIES = 20
"""places that are tried for a patch"""


class Source(Protocol):
    """Where cells are cut from: dataset.DataSet has it."""

    def label_maps(self, index: int) -> Array:
        """(C, H, W) int32."""

    def part(self, index: int, rows: slice, columns: slice) -> tuple[Array, Array]:
        """A window of an image and of its label maps."""


@dataclass(frozen=True)
class Donors:
    """The cells of some images that no border cuts."""

    source: Source
    images: Array
    """(N,) index of the image that each lies in"""
    labels: Array
    """(N,) class 1..C"""
    ids: Array
    boxes: Array
    """(N, 4) int64 xyxy, pixels"""
    last_id: int
    """largest id of the images, so that what is pasted has the id of no cell of the whole image"""

    @cached_property
    def weights(self) -> Array:
        """How often each is drawn (N,): a class by 1 / sqrt of its cells, any cell of a class as often as another."""
        counts = np.bincount(self.labels)
        weights: Array = counts[self.labels] ** -1.5
        return weights


@dataclass(frozen=True)
class Patch:
    """A cell, cut out."""

    pixels: Array
    """(h, w, 3) uint8"""
    alpha: Array
    """(h, w) float32: 1 in the cell, less in its rim, 0 beyond and in other cells"""
    label: int
    background: Array
    """(3,) mean colour around it, not a number where only cells lie around it"""


def donors_of(source: Source, indices: Sequence[int], minimum_area: int = 1) -> Donors:
    """The cells of these images that have so many pixels and lie, with their rim, inside their image."""
    images, labels, ids, boxes, last_id = [], [], [], [], 0
    for index in indices:
        label_maps = source.label_maps(index)
        cells = target(label_maps, minimum_area)
        corners = cells["boxes"].numpy().astype(np.int64)
        height, width = label_maps.shape[1:]
        whole = ((corners >= RIM) & (corners <= [width, height] * 2 - np.array([0, 0, RIM, RIM]))).all(axis=1)
        images.append(np.full(int(whole.sum()), index))
        labels.append(cells["labels"].numpy()[whole])
        ids.append(cells["ids"].numpy()[whole])
        boxes.append(corners[whole])
        last_id = max(last_id, int(label_maps.max()))
    nothing = np.empty(0, np.int64)
    return Donors(
        source,
        np.concatenate([nothing, *images]),
        np.concatenate([nothing, *labels]),
        np.concatenate([nothing, *ids]),
        np.concatenate([np.empty((0, 4), np.int64), *boxes]),
        last_id,
    )


def pasted(
    image: Array, label_maps: Array, rng: np.random.Generator, donors: Donors, index: int, config: AugmentConfig
) -> tuple[Array, Array]:
    """Copies of both with 0 to config.copy_paste cells of other images than `index`, where no cell lies.

    image (H, W, 3) uint8, label_maps (C, H, W) int32 of a view. A cell that finds no place is left out.
    """
    image, label_maps = image.copy(), label_maps.copy()
    free = np.logical_not(label_maps.any(axis=0))
    ends = np.cumsum(np.where(donors.images == index, 0, donors.weights))
    if not ends.any():
        return image, label_maps
    for _ in range(int(rng.integers(config.copy_paste + 1))):
        chosen = int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
        patch = turned(cut(donors, chosen), config, rng)
        if place := _place(free, patch.alpha > 0, rng):
            image[place] = _blended(image, free, patch, place)
            cell = patch.alpha == 1
            label_maps[patch.label - 1][place][cell] = max(donors.last_id, label_maps.max()) + 1
            free[place] &= ~cell
    return image, label_maps


def cut(donors: Donors, number: int) -> Patch:
    """A cell as it is in its image, with its rim."""
    x1, y1, x2, y2 = donors.boxes[number].tolist()
    top, left = max(y1 - SURROUNDINGS, 0), max(x1 - SURROUNDINGS, 0)
    rows, columns = slice(top, y2 + SURROUNDINGS), slice(left, x2 + SURROUNDINGS)
    pixels, label_maps = donors.source.part(int(donors.images[number]), rows, columns)
    label = int(donors.labels[number])
    cell = label_maps[label - 1] == donors.ids[number]
    empty = np.logical_not(label_maps.any(axis=0))
    distance = cv2.distanceTransform((~cell).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    alpha = np.where(cell | empty, np.clip(1 - distance / (RIM + 1), 0, 1), 0).astype(np.float32)
    kept = slice(y1 - RIM - top, y2 + RIM - top), slice(x1 - RIM - left, x2 + RIM - left)
    return Patch(pixels[kept], alpha[kept], label, _mean(pixels, empty))


def turned(patch: Patch, config: AugmentConfig, rng: np.random.Generator) -> Patch:
    """The patch after random flips and quarter turns, where the config has them."""
    turns, mirrored = int(rng.integers(4)) * config.turns, bool(rng.integers(2)) and config.flips
    pixels, alpha = (np.rot90(each[:, ::-1] if mirrored else each, turns) for each in (patch.pixels, patch.alpha))
    return replace(patch, pixels=pixels, alpha=alpha)


def _place(free: Array, covered: Array, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """A random window of free (H, W) bool whose covered (h, w) pixels are all free; None where TRIES find none."""
    (height, width), room = covered.shape, np.subtract(free.shape, covered.shape) + 1
    if room.min() < 1:
        return None
    for y, x in rng.integers(0, room, (TRIES, 2)).tolist():
        place = slice(y, y + height), slice(x, x + width)
        if free[place][covered].all():
            return place
    return None


def _blended(image: Array, free: Array, patch: Patch, place: tuple[slice, slice]) -> Array:
    """The pixels (h, w, 3) uint8 of a place with the patch over them, in the stain of what lies around."""
    around = tuple(slice(max(span.start - SURROUNDINGS, 0), span.stop + SURROUNDINGS) for span in place)
    gain = np.nan_to_num(_mean(image[around], free[around]) / np.maximum(patch.background, 1), nan=1.0)
    colored = np.clip(patch.pixels * np.clip(gain, *GAINS), 0, 255)
    below = image[place].astype(np.float32)
    blended: Array = np.rint(below + patch.alpha[:, :, None] * (colored - below)).astype(np.uint8)
    return blended


def _mean(image: Array, chosen: Array) -> Array:
    """Mean colour (3,) of the chosen pixels, not a number where there are none."""
    count = int(chosen.sum())
    mean: Array = image[chosen].sum(axis=0) / count if count else np.full(3, np.nan)
    return mean
