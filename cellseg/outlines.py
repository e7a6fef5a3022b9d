"""Windows <-> outlines along the edges of their pixels: what polygon formats hold, exact both ways.

Pixel (x, y) is the square from (x, y) to (x + 1, y + 1). Letters: h x w size of a window, K corners of a ring.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from cellseg.codes import Array

Ring = list[tuple[int, int]]
"""corners (x, y) of a closed line that neither crosses nor touches itself; the first is not given again"""
EAST, SOUTH, WEST, NORTH = range(4)
FARTHEST = 1e7
"""pixels from the origin that a corner may lie"""
TIE = 1e-8
"""pixels up to which a centre is on a line"""


def outlines_of(mask: Array, corner_xy: tuple[int, int] = (0, 0)) -> list[list[Ring]]:
    """The parts of a mask (h, w) bool whose top left pixel is corner_xy: of each its exterior, then its holes.

    Pixels that meet in a corner alone are two parts. Exteriors run clockwise on the screen, holes the other way.

    >>> outlines_of(np.array([[1, 1, 1]], bool), (5, 2))
    [[[(5, 2), (8, 2), (8, 3), (5, 3)]]]
    """
    stride = mask.shape[1] + 1
    rings = [
        [(at % stride, at // stride) for at in ring]
        for loop in _loops(*_edges(mask))
        for ring in _without_touches(loop)
    ]
    left, top = corner_xy
    return [[[(x + left, y + top) for x, y in ring] for ring in part] for part in _parts(rings, mask)]


def window_of(rings: Sequence[Array], size_hw: tuple[int, int]) -> tuple[tuple[int, int], Array]:
    """Top left pixel (x, y) and mask (h, w) bool of the pixels of an image whose centres lie within lines (K, 2) xy.

    Within is what an odd number of lines goes round. A centre on a line belongs to what is left of the line or below,
    as in ImageJ: areas that share a line share no pixel, and the rings of outlines_of give back their mask. Raises
    ValueError for corners that are no numbers or FARTHEST away.
    """
    corners = np.concatenate([np.zeros((0, 2)), *rings])
    if not (np.abs(corners) < FARTHEST).all():
        raise ValueError(f"expected corners within {FARTHEST:.0f} pixels of the image, found some that are not")
    if not len(corners):
        return (0, 0), np.zeros((0, 0), bool)
    low, high = (ends.clip(0, size_hw[::-1]).astype(int) for ends in (corners.min(axis=0), corners.max(axis=0) + 1))
    (width, height) = (high - low).tolist()
    odd = np.zeros((height, width + 1), bool)  # whether a line lies between the centre and that of the pixel before
    for ring in rings:
        np.logical_xor.at(odd, _crossings(ring - low, height, width), True)
    mask: Array = np.logical_xor.accumulate(odd[:, :width], axis=1)
    return (int(low[0]), int(low[1])), mask


def _crossings(ring: Array, height: int, width: int) -> tuple[Array, Array]:
    """Rows and columns of the first pixel centres right of a closed line (K, 2), wherever it crosses a row of them."""
    ends = np.stack([ring, np.roll(ring, -1, axis=0)])
    ends = np.where(ends[0, :, 1:] > ends[1, :, 1:], ends[::-1], ends)  # an edge crosses at one place from either side
    (x1, y1), (x2, y2) = ends[0].T, ends[1].T
    first, after = (np.ceil(y - 0.5).clip(0, height).astype(int) for y in (y1, y2))
    counts = after - first
    edges = np.repeat(np.arange(len(ring)), counts)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    x = x1[edges] + (rows + 0.5 - y1[edges]) * ((x2 - x1)[edges] / (y2 - y1)[edges])
    return rows, np.floor(x + (0.5 + TIE)).clip(0, width).astype(int)


def _edges(mask: Array) -> tuple[Array, Array, Array]:
    """Starts, ends and directions of the straight edges of a mask (h, w), which has its pixels on their right.

    The corner (x, y) of a pixel is the number y * (w + 1) + x.
    """
    stride = mask.shape[1] + 1
    padded = np.zeros((mask.shape[0] + 2, stride + 1), np.int8)
    padded[1:-1, 1:-1] = mask
    below = padded[1:, 1:-1] - padded[:-1, 1:-1]  # (h + 1, w): 1 where a pixel is below, -1 above
    beside = (padded[1:-1, 1:] - padded[1:-1, :-1]).T  # (w + 1, h): 1 where a pixel is to the right, -1 to the left
    rows, west, east, eastward = _runs(below)
    columns, north, south, northward = _runs(beside)
    west, east = rows * stride + west, rows * stride + east
    north, south = north * stride + columns, south * stride + columns
    starts = np.concatenate([np.where(eastward, west, east), np.where(northward, south, north)])
    ends = np.concatenate([np.where(eastward, east, west), np.where(northward, north, south)])
    return starts, ends, np.concatenate([np.where(eastward, EAST, WEST), np.where(northward, NORTH, SOUTH)])


def _runs(signs: Array) -> tuple[Array, Array, Array, Array]:
    """Line, first place, place after the last, and whether it is of 1, of each run of 1 or -1 along the lines."""
    length = signs.shape[1] + 2
    padded = np.zeros((len(signs), length), np.int8)
    padded[:, 1:-1] = signs
    flat = padded.ravel()
    steps = np.flatnonzero(flat[1:] != flat[:-1])
    begins = steps[flat[steps + 1] != 0]
    lines, first = np.divmod(begins, length)
    return lines, first, steps[flat[steps] != 0] % length, flat[begins + 1] > 0


def _loops(starts: Array, ends: Array, directions: Array) -> Iterator[list[int]]:
    """The starts of edges that follow each other round; where two go on from a point, it is the right turn."""
    keys = starts * 4 + directions
    order = np.argsort(keys)
    ranked = keys[order]
    right, left = (ends * 4 + (directions + turn) % 4 for turn in (1, 3))
    at = np.searchsorted(ranked, right).clip(max=len(ranked) - 1)
    follower = order[np.where(ranked[at] == right, at, np.searchsorted(ranked, left))].tolist()
    points, seen = starts.tolist(), [False] * len(follower)
    for begin in range(len(follower)):
        loop, edge = [], begin
        while not seen[edge]:
            seen[edge] = True
            loop.append(points[edge])
            edge = follower[edge]
        if loop:
            yield loop


def _without_touches(loop: list[int]) -> Iterator[list[int]]:
    """The loops into which one falls at the points that it comes through twice."""
    if len(set(loop)) == len(loop):
        yield loop
        return
    path: list[int] = []
    for point in loop:
        if point in path:
            place = path.index(point)
            yield path[place:]
            del path[place:]
        path.append(point)
    yield path


def _parts(rings: list[Ring], mask: Array) -> list[list[Ring]]:
    """The rings of each part, its exterior first."""
    components = ndimage.label(mask)[0] if len(rings) > 1 else mask
    parts: dict[int, list[Ring]] = {}
    for ring in sorted(rings, key=_is_hole):
        x, y = min(ring)
        parts.setdefault(int(components[y, x - _is_hole(ring)]), []).append(ring)
    return list(parts.values())


def _is_hole(ring: Ring) -> bool:
    """Whether the pixels lie outside: then the edge at the very left goes down."""
    place = ring.index(min(ring))
    return ring[place - 1][0] != ring[place][0]
