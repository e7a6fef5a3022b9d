"""Cells as somebody drew them: named outlines -> run-length codes.

Letters: K corners of a line, H x W size of the image.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from cellseg.codes import Array, Code, encode
from cellseg.outlines import window_of


class Outline(NamedTuple):
    """One object of a file."""

    where: str
    """the file and the object, for errors"""
    class_name: str
    rings: list[Array]
    """closed lines (K, 2) xy in pixels of the image; the cell is where an odd number of them goes round"""


class DrawnCell(NamedTuple):
    """One cell of an image, which may overlap others."""

    code: Code
    class_name: str


def drawn(outlines: Iterable[Outline], size_hw: tuple[int, int]) -> list[DrawnCell]:
    """The cells of an image (H, W). Raises ValueError for an outline that holds no pixel's centre."""
    names, masks, corners = [], [], []
    for where, class_name, rings in outlines:
        try:
            corner, mask = window_of(rings, size_hw)
        except ValueError as error:
            raise ValueError(f"{where}: {error}; draw it again") from error
        if not mask.any():
            raise ValueError(
                f"{where}: expected an outline around pixels of the image, {size_hw[0]} high and {size_hw[1]} wide, "
                "found none within; remove it, or is it of another image?"
            )
        names.append(class_name)
        masks.append(mask)
        corners.append(corner)
    codes = encode(masks, np.array(corners), size_hw)
    return [DrawnCell(code, name) for code, name in zip(codes, names, strict=True)]
