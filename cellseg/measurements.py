"""What can be measured of cells: shape, stain, surroundings. Pixels of the image are read block by block.

Letters: N cells, h x w size of the window of one.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import KDTree

from cellseg import stain
from cellseg.cells import Cells
from cellseg.codes import Array, windows_of
from cellseg.slides import Image
from cellseg.whole_files import whole

RADIUS_UM = 50
"""microns within which other cells are neighbours"""
RADIUS_DIAMETERS = 3
"""median diameters within which they are where the size of a pixel is not known"""
BLOCK = 1024
"""pixels a side of the squares of an image whose cells are read together"""
STEEP = math.atan(1 / 2)
DIRECTIONS = {
    **dict.fromkeys([(1, 0), (0, 1)], STEEP),
    **dict.fromkeys([(1, 1), (-1, 1)], math.pi / 4 - STEEP),
    **dict.fromkeys([(2, 1), (1, 2), (-1, 2), (-2, 1)], math.pi / 8),
}
"""steps x and y from pixel to pixel, and the angle for which each stands; together half a turn"""
LENGTHS = ("centroid_x", "centroid_y", "perimeter", "major_axis", "minor_axis", "nearest_distance")
"""columns that are also given in microns where mpp is known; so is the area"""


def measured(cells: Cells, image: Image) -> dict[str, Array]:
    """Columns (N,) of the cells of an image, by name.

    Lengths are in pixels, and with the ending _um in microns where `cells.mpp` is known.

    - number: 1..N; class and score
    - centroid_x, centroid_y: from the image's top left corner, so that the first pixel's are .5
    - perimeter: Crofton's, in eight directions, holes included; circularity: 4 pi area / perimeter^2, at most 1
    - major_axis, minor_axis, eccentricity: of the ellipse with the same second moments
    - orientation: of the major axis, counter-clockwise on the screen from the x axis, 0..180 degrees
    - solidity: share of the pixels of the convex hull
    - hematoxylin_od, eosin_od: mean optical density, decimal logarithm
    - neighbors_50um, or neighbors_3_diameters where mpp is not known: other cells whose centroids lie within
      50 microns, or 3 median diameters; nearest_distance: to the nearest other centroid, NaN of a cell alone
    """
    columns = {
        "number": np.arange(1, len(cells) + 1),
        "class": np.array(cells.names, np.str_),
        "score": cells.scores.astype(np.float64),
        **_shapes(cells),
    }
    columns["hematoxylin_od"], columns["eosin_od"] = stain.unmixed(_densities(cells, image) / np.log(10)).T
    columns |= _surroundings(columns, cells.mpp)
    if cells.mpp is not None:
        columns["area_um2"] = columns["area"] * cells.mpp**2
        columns |= {f"{name}_um": columns[name] * cells.mpp for name in LENGTHS}
    return columns


def write(cells: Cells, image: Image, path: Path) -> None:
    """Write what is measured as csv with a line a cell; NaN is left empty."""
    columns = {name: column.tolist() for name, column in measured(cells, image).items()}
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_shown(value) for value in row] for row in zip(*columns.values(), strict=True))


def _shown(value: float | str) -> float | str:
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else round(value, 5)


def _shapes(cells: Cells) -> dict[str, Array]:
    """Place, size and shape, from the masks alone."""
    rows = [(*corner, *_moments(window), _perimeter(window), _hull(window)) for corner, window in cells.windows()]
    left, top, area, x, y, xx, yy, xy, perimeter, hull = np.array(rows, np.float64).reshape(-1, 10).T
    half, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    major, minor = 4 * np.sqrt(half + spread), 4 * np.sqrt(np.maximum(half - spread, 0))
    return {
        "centroid_x": left + x,
        "centroid_y": top + y,
        "area": area.astype(np.int64),
        "perimeter": perimeter,
        "circularity": np.minimum(4 * np.pi * area / perimeter**2, 1),
        "major_axis": major,
        "minor_axis": minor,
        "orientation": np.degrees(np.arctan2(-2 * xy, xx - yy) / 2) % 180,  # y goes down
        "eccentricity": np.sqrt(1 - (minor / major) ** 2),
        "solidity": area / hull,
    }


def _moments(mask: Array) -> tuple[float, ...]:
    """Area, centroid x and y from the corner, and variances xx, yy, xy of a mask (h, w) bool, a pixel a square."""
    ys, xs = np.nonzero(mask)
    x, y = xs.mean(), ys.mean()
    dx, dy = xs - x, ys - y
    area, own = len(xs), 1 / 12  # the variance within a pixel
    return area, x + 0.5, y + 0.5, dx @ dx / area + own, dy @ dy / area + own, dx @ dy / area


def _perimeter(mask: Array) -> float:
    """Length of the border of a mask (h, w) bool, from how often lines in DIRECTIONS cross it (Cauchy and Crofton)."""
    height, width = mask.shape[0] + 4, mask.shape[1] + 4
    padded = np.zeros((height, width), bool)
    padded[2:-2, 2:-2] = mask
    length = 0.0
    for (x, y), angle in DIRECTIONS.items():
        here = padded[: height - y, max(-x, 0) : width - max(x, 0)]
        there = padded[y:, max(x, 0) : width + min(x, 0)]
        length += np.count_nonzero(here ^ there) * angle / math.hypot(x, y) / 2  # such lines are 1 / hypot apart
    return length


def _hull(mask: Array) -> float:
    """Pixels whose centres lie in the convex hull of the centres of a mask (h, w) bool."""
    rows = np.flatnonzero(mask.any(axis=1))
    ends = [mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)]
    hull = cv2.convexHull(np.stack([np.concatenate(ends), np.tile(rows, 2)], axis=1).astype(np.int32))
    steps = np.abs(hull - np.roll(hull, 1, axis=0)).reshape(-1, 2)
    return float(cv2.contourArea(hull) + np.gcd(*steps.T).sum() / 2 + 1)  # Pick's theorem


def _densities(cells: Cells, image: Image) -> Array:
    """Mean optical densities (N, 3) of red, green and blue, natural logarithm."""
    densities = np.zeros((len(cells), 3))
    boxes = cells.boxes()
    for numbers in _blocks(boxes):
        left, top = boxes[numbers, :2].min(axis=0).tolist()
        right, bottom = boxes[numbers, 2:].max(axis=0).tolist()
        pixels = image[top:bottom, left:right]
        for number, ((x, y), window) in zip(numbers, windows_of([cells.codes[n] for n in numbers]), strict=True):
            height, width = window.shape
            part = pixels[y - top : y - top + height, x - left : x - left + width]
            densities[number] = stain.density(part, window)
    return densities


def _blocks(boxes: Array) -> Iterator[list[int]]:
    """The numbers from 0 of cells with boxes (N, 4) xyxy, block by block in the order in which files have pixels."""
    rows, columns = boxes[:, 1] // BLOCK, boxes[:, 0] // BLOCK
    order = np.lexsort((columns, rows))
    changes = np.flatnonzero(np.diff(rows[order]) | np.diff(columns[order])) + 1
    yield from (part.tolist() for part in np.split(order, changes) if len(part))


def _surroundings(columns: dict[str, Array], mpp: float | None) -> dict[str, Array]:
    """Other cells nearby, and how far the nearest is."""
    if mpp is None:
        name, radius = f"neighbors_{RADIUS_DIAMETERS}_diameters", RADIUS_DIAMETERS * _median_diameter(columns["area"])
    else:
        name, radius = f"neighbors_{RADIUS_UM}um", RADIUS_UM / mpp
    points = np.stack([columns["centroid_x"], columns["centroid_y"]], axis=1)
    tree = KDTree(points)
    within = tree.query_ball_point(points, radius, return_length=True) - 1  # without itself
    nearest = np.asarray(tree.query(points, k=2)[0])[:, 1]
    return {name: within, "nearest_distance": np.where(np.isfinite(nearest), nearest, np.nan)}


def _median_diameter(areas: Array) -> float:
    """Of discs of these areas (N,); 0 where there is none."""
    return float(2 * np.sqrt(np.median(areas) / np.pi)) if len(areas) else 0.0
