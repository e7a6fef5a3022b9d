"""Cells of chosen shapes, for the tests of formats."""

import numpy as np

from cellseg.cells import Cells
from cellseg.codes import decode, encode

NAMES = ("epithelial", "mast cell")
SIZE = (60, 80)


def cells_of_shapes(*shapes, size=SIZE, names=NAMES, mpp=None):
    """Cells of (x, y, mask, label), the first the surest."""
    corners = np.array([shape[:2] for shape in shapes])
    codes = encode([np.asarray(shape[2], bool) for shape in shapes], corners, size)
    labels = np.array([shape[3] for shape in shapes], np.int64)
    scores = 1 - np.arange(len(shapes), dtype=np.float32) / 1024
    return Cells(size, tuple(codes), labels, scores, names, mpp)


def awkward_cells(mpp=0.5):
    """A pixel, a ring, its filling, pixels that meet in a corner, corners of the image, cells that touch, a disc."""
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    shapes = [
        (70, 50, [[1]], 1),
        (10, 10, ring, 2),
        (30, 10, [[1, 0], [0, 1]], 1),
        (76, 57, np.ones((3, 4)), 2),
        (0, 0, np.ones((4, 6)), 1),
        (40, 30, np.ones((6, 4)), 1),
        (44, 30, np.ones((6, 3)), 2),
        (10, 30, disc(8), 1),
        (12, 12, [[1]], 1),
    ]
    return cells_of_shapes(*shapes, mpp=mpp)


def no_cells():
    return cells_of_shapes()


def disc(radius, wide=1.0):
    """Pixels (h, w) bool whose centres lie in a disc of that radius, or in an ellipse `wide` times as wide."""
    reach = int(np.ceil(radius * wide)) + 1
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    mask = (xs / wide) ** 2 + ys**2 <= radius**2
    return mask[np.ix_(mask.any(axis=1), mask.any(axis=0))]


def masks_of(codes):
    """Masks (N, H, W) bool, small images alone."""
    return np.array([decode(code) for code in codes])


def noise(size=SIZE, seed=0):
    """An image (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
