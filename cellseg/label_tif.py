"""One tif in which the value of a pixel is the number of its cell: written and painted row by row of tiles.

Letters: N cells, H x W size of the image.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cellseg.annotations import read_label_map
from cellseg.cells import Cells
from cellseg.codes import Array, windows_of
from cellseg.drawn import DrawnCell
from cellseg.label_maps import codes_of, ids_of
from cellseg.whole_files import whole

TILE = 256
"""pixels a side, a multiple of 16"""
LARGEST_PLAIN = 2**32 - 2**25
"""bytes of pixels that a tif with offsets of 32 bits may have; leaves room for the rest of it"""


def write(cells: Cells, path: Path) -> None:
    """Write numbers 1..N, 0 for background, uint16 up to 65,535 cells and uint32 beyond, deflated; pixels per cm."""
    dtype: np.dtype[Any] = np.dtype(np.uint16 if len(cells) < 2**16 else np.uint32)
    height, width = cells.size_hw
    with whole(path) as partial:
        tifffile.imwrite(
            partial,
            _tiles(cells, dtype),
            shape=cells.size_hw,
            dtype=dtype,
            bigtiff=height * width * dtype.itemsize > LARGEST_PLAIN,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
            metadata=None,
            software=False,
            resolution=(1e4 / cells.mpp, 1e4 / cells.mpp) if cells.mpp else None,
            resolutionunit="CENTIMETER" if cells.mpp else None,
        )


def read(
    path: Path, size_hw: tuple[int, int], table: Path | None = None, unclassified: str | None = None
) -> list[DrawnCell]:
    """The cells of a label tif of an image (H, W), by number; table is a csv of their numbers and classes.

    `unclassified` is the class of cells that the table does not name. Raises FileNotFoundError, and ValueError that
    names the file and the cell at fault.
    """
    label_map = read_label_map(path, size_hw)
    names = _class_names(table) if table else {}
    cells = []
    for number, code in zip(ids_of(label_map).tolist(), codes_of(label_map), strict=True):
        name = names.get(number, unclassified)
        if name is None:
            where = f"{table}: expected a row" if table else f"{path}: expected a csv beside it"
            raise ValueError(
                f"{where} with the class of cell {number}, found none; add it, or give all such one by --unclassified"
            )
        cells.append(DrawnCell(code, name))
    return cells


def _tiles(cells: Cells, dtype: np.dtype[Any]) -> Iterator[Array]:
    """The tiles from left to right and from top to bottom; at the border they go on as background."""
    height, width = cells.size_hw
    boxes = cells.boxes()
    across = -(-width // TILE)
    for top in range(0, height, TILE):
        band = np.zeros((TILE, across * TILE), dtype)
        inside = np.flatnonzero((boxes[:, 1] < top + TILE) & (boxes[:, 3] > top)).tolist()
        for number, ((x, y), window) in zip(inside, windows_of([cells.codes[n] for n in inside]), strict=True):
            part = window[max(top - y, 0) : top + TILE - y]
            band[max(y - top, 0) :, x:][: part.shape[0], : part.shape[1]][part] = number + 1
        for left in range(0, across * TILE, TILE):
            yield np.ascontiguousarray(band[:, left : left + TILE])


def _class_names(path: Path) -> dict[int, str]:
    """The columns number and class of a csv, without the rows that have no class."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return {int(row["number"]): row["class"] for row in rows if row["class"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected columns number and class, a number a cell, found {error}; export it again"
        ) from error
