"""Run-length codes of COCO: windows -> codes, and back to runs, pixels and masks.

Letters: N codes, H x W size of the image.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Array = npt.NDArray[Any]
Code = dict[str, Any]
"""{"size": [H, W], "counts": str}"""
COUNTS = re.compile("(?:[P-o]{0,6}[0-O])+")  # numbers of at most 35 bits; pycocotools reads past the end of others


def encode(masks: Sequence[Array], corners_xy: Array, size_hw: tuple[int, int]) -> list[Code]:
    """Run-length codes of boolean windows (h, w) whose top left pixels lie at corners_xy (N, 2).

    Cost grows with the windows, not with the canvas (H, W), which must contain them. Same codes as pycocotools'
    encode of the full-size mask.
    """
    runs = [_runs(mask, int(x), int(y), size_hw) for mask, (x, y) in zip(masks, corners_xy, strict=True)]
    if not runs:
        return []
    listed = [{"size": list(size_hw), "counts": counts} for counts in runs]
    codes: list[Code] = coco_mask.frPyObjects(listed, *size_hw)
    return [{"size": list(size_hw), "counts": code["counts"].decode()} for code in codes]


def _runs(mask: Array, x: int, y: int, size_hw: tuple[int, int]) -> list[int]:
    """Lengths of the runs of 0, 1, 0, … down the columns of the canvas, from the runs of the window."""
    height, width = size_hw
    padded = np.zeros((mask.shape[1], mask.shape[0] + 1), np.int8)
    padded[:, :-1] = mask.T  # one row a column of the image, closed by a 0
    columns, rows = np.nonzero(np.diff(padded, axis=1, prepend=0))
    edges = (columns + x) * height + rows + y  # starts and ends in turn
    joined = edges[1:-1:2] == edges[2::2]  # a run that ends at the bottom goes on at the top of the next column
    inner = edges[1:-1].reshape(-1, 2)[~joined].ravel()
    edges = np.concatenate([edges[:1], inner, edges[-1:]])
    last = [height * width] if not len(edges) or edges[-1] < height * width else []
    counts: list[int] = np.diff(np.concatenate([[0], edges, last])).astype(np.int64).tolist()
    return counts


def decode(code: Code) -> Array:
    """The mask (H, W) bool of one run-length code."""
    mask: Array = coco_mask.decode(code).astype(bool)
    return mask


def nonempty(codes: Sequence[Code]) -> Array:
    """Whether each of N run-length codes has a pixel, (N,) bool."""
    has_width: Array = np.asarray(coco_mask.toBbox(list(codes))).reshape(-1, 4)[:, 2] > 0
    return has_width


def pixels_of(codes: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
    """Flat pixels (P,) int64 of run-length codes, code after code, and the number of the code of each (P,).

    Raises ValueError for a code that is broken or longer than its own size.
    """
    runs, numbers, places = _decoded([code["counts"] for code in codes])
    ends = np.cumsum(runs)
    starts = ends - runs
    first = np.flatnonzero(places == 0)
    totals = np.add.reduceat(runs, first) if len(first) else runs
    for number, (total, code) in enumerate(zip(totals.tolist(), codes, strict=True)):
        if total > code["size"][0] * code["size"][1]:
            raise ValueError(
                f"mask {number} of {len(codes)} in its image: counts cover {total} pixels of {code['size']}"
            )
    on = places % 2 == 1
    spans, owners = runs[on], numbers[on]
    shifts = (starts - starts[first][numbers])[on] - (np.cumsum(spans) - spans)
    return np.repeat(shifts, spans) + np.arange(spans.sum()), np.repeat(owners, spans)


def run_lengths(counts: str) -> list[int]:
    """Lengths of the runs of 0, 1, 0, … down the columns that the counts of a COCO run-length code stand for.

    Raises ValueError for text that is not COUNTS and for negative runs, which pycocotools takes without a word.

    >>> run_lengths("0250l0")  # 2 x 2 pixels in the top left corner of 7 rows and 6 columns
    [0, 2, 5, 2, 33]
    """
    runs: list[int] = _decoded([counts])[0].tolist()
    return runs


def _decoded(texts: Sequence[str]) -> tuple[Array, Array, Array]:
    """The runs (R,) int64 of N counts one after the other, the number of the counts of each, and its place therein.

    A number is groups of five bits, lowest first, each a character from "0" on whose sixth bit says that another
    follows; after the third, a number is the difference to the one before the last (pycocotools, maskApi.c).
    """
    joined = "".join(texts)
    bits = np.frombuffer(joined.encode("latin-1", "replace"), np.uint8).astype(np.int64) - 48
    lengths = np.array([len(text) for text in texts], np.int64)
    last = np.flatnonzero(bits < 32)  # the characters that end a number
    groups = np.diff(last, prepend=-1)
    whole = joined.isascii() and all(texts) and (bits[np.cumsum(lengths) - 1] < 32).all()
    if not whole or ((bits < 0) | (bits > 63)).any() or (groups > 7).any():  # as COUNTS has it, for all at once
        raise ValueError("counts are not the text of a run-length code")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(last + 1 - groups, groups))
    sums = np.cumsum((bits & 31) << shifts)
    runs = np.diff(sums[last], prepend=0) - np.where(bits[last] & 16, 1 << 5 * groups, 0)  # in two's complement
    numbers = np.repeat(np.arange(len(texts)), lengths)[last]
    places = np.arange(len(runs)) - np.searchsorted(numbers, np.arange(len(texts)))[numbers]
    for chain in (np.flatnonzero(places % 2), np.flatnonzero((places % 2 == 0) & (places > 0))):
        sums = np.cumsum(runs[chain])
        begins = np.flatnonzero(np.diff(numbers[chain], prepend=-1))
        before = (sums - runs[chain])[begins]  # of the counts in front
        runs[chain] = sums - np.repeat(before, np.diff(begins, append=len(chain)))
    if (runs < 0).any():
        raise ValueError(f"counts hold a run of {runs.min()} pixels")
    return runs, numbers, places
