"""Run-length codes of COCO: windows -> codes, and back to runs, pixels and masks.

Letters: N codes, H x W size of the image.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

Array = npt.NDArray[Any]
Code = dict[str, Any]
"""{"size": [H, W], "counts": str}"""
CODES_AT_ONCE = 1000
"""read or written together: their pixels take memory"""
COUNTS = re.compile("(?:[P-o]{0,6}[0-O])+")  # numbers of at most 35 bits; pycocotools reads past the end of others


def encode(masks: Sequence[Array], corners_xy: Array, size_hw: tuple[int, int]) -> list[Code]:
    """Run-length codes of boolean windows (h, w) whose top left pixels lie at corners_xy (N, 2).

    Cost grows with the windows, not with the canvas (H, W), which must contain them. Same codes as pycocotools'
    encode of the full-size mask.
    """
    if not len(masks):
        return []
    height, width = size_hw
    owners, edges = _joined(*_edges(masks, corners_xy, height))
    first = np.searchsorted(owners, np.arange(len(masks) + 1)).tolist()  # edges of code n: first[n] to first[n + 1]
    lengths = np.diff(edges, prepend=0)
    starts = [k for k, after in pairwise(first) if after > k]
    lengths[starts] = edges[starts]  # the first run of a code begins at the canvas's first pixel
    listed: list[list[int]] = []
    ends, runs = edges.tolist(), lengths.tolist()
    for begin, after in pairwise(first):
        last = height * width - (ends[after - 1] if after > begin else 0)
        listed.append(runs[begin:after] + ([last] if last else []))
    return [{"size": [height, width], "counts": counts} for counts in _encoded(listed)]


def _edges(masks: Sequence[Array], corners_xy: Array, height: int) -> tuple[Array, Array]:
    """Starts and ends in turn of the runs of 1 in each column, as flat pixels of the canvas, and whose they are.

    All windows lie behind each other in one array, so that numpy is called once for all and not once for each.
    """
    heights, widths = np.array([mask.shape for mask in masks]).T
    sizes = (heights + 1) * widths
    begins = np.cumsum(sizes) - sizes
    pixels = np.zeros(1 + int(sizes.sum()), bool)
    for mask, begin, size in zip(masks, (begins + 1).tolist(), sizes.tolist(), strict=True):
        columns = pixels[begin : begin + size].reshape(mask.shape[1], mask.shape[0] + 1)
        columns[:, :-1] = mask.T  # one row a column of the image, closed by a 0
    places = np.flatnonzero(pixels[1:] != pixels[:-1])
    owners = np.searchsorted(begins, places, side="right") - 1
    columns, rows = np.divmod(places - begins[owners], heights[owners] + 1)
    x, y = np.asarray(corners_xy, np.int64).T[:, owners]
    return owners, (columns + x) * height + rows + y


def _joined(owners: Array, edges: Array) -> tuple[Array, Array]:
    """The edges without those where a run that ends at the bottom goes on at the top of the next column."""
    apart = (edges[1:-1:2] != edges[2::2]) | (owners[1:-1:2] != owners[2::2])
    kept = np.ones(len(edges), bool)
    kept[1:-1] = np.repeat(apart, 2)
    return owners[kept], edges[kept]


def _encoded(codes: Sequence[Sequence[int]]) -> list[str]:
    """The counts of runs, written as `_decoded` reads them; pycocotools has no runs of 2^32 pixels, a slide may."""
    lengths = np.array([len(runs) for runs in codes])
    runs = np.array([run for each in codes for run in each], np.int64)
    places = np.arange(len(runs)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers = runs.copy()
    later = np.flatnonzero(places > 2)
    numbers[later] -= runs[later - 2]
    groups = np.frexp(np.where(numbers < 0, ~numbers, numbers).astype(np.float64))[1] // 5 + 1  # a bit for the sign
    ends = np.cumsum(groups)
    group = np.arange(groups.sum()) - np.repeat(ends - groups, groups)
    bits = np.repeat(numbers, groups) >> 5 * group & 31
    bits[group < np.repeat(groups, groups) - 1] |= 32
    text = (bits + 48).astype(np.uint8).tobytes().decode("ascii")
    after = np.concatenate([[0], ends])[np.cumsum(lengths)].tolist()
    return [text[begin:end] for begin, end in pairwise([0, *after])]


def decode(code: Code) -> Array:
    """The mask (H, W) bool of one run-length code."""
    mask: Array = coco_mask.decode(code).astype(bool)
    return mask


def nonempty(codes: Sequence[Code]) -> Array:
    """Whether each of N run-length codes has a pixel, (N,) bool."""
    runs, numbers, places = _decoded([code["counts"] for code in codes])
    pixels: Array = np.bincount(numbers, runs * (places % 2), len(codes)) > 0
    return pixels


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


def windows_of(codes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[int, int], Array]]:
    """Top left pixel (x, y) and mask (h, w) bool of each code, tight around it; none of an empty one."""
    for begin in range(0, len(codes), CODES_AT_ONCE):
        part = codes[begin : begin + CODES_AT_ONCE]
        pixels, owners = pixels_of(part)
        ends = np.searchsorted(owners, np.arange(len(part) + 1))
        for code, first, after in zip(part, ends, ends[1:], strict=False):
            xs, ys = np.divmod(pixels[first:after], code["size"][0])
            if not len(xs):
                yield (0, 0), np.zeros((0, 0), bool)
                continue
            x, y = int(xs[0]), int(ys.min())  # down the columns, from the left
            window = np.zeros((int(ys.max()) + 1 - y, int(xs[-1]) + 1 - x), bool)
            window[ys - y, xs - x] = True
            yield (x, y), window


def well_formed(texts: Sequence[str]) -> bool:
    """Whether all of these are COUNTS; of thousands, in the time that the pattern takes for a few."""
    try:
        _characters(texts)
    except ValueError:
        return False
    return True


def run_lengths(counts: str) -> list[int]:
    """Lengths of the runs of 0, 1, 0, … down the columns that the counts of a COCO run-length code stand for.

    Raises ValueError for text that is not COUNTS and for negative runs, which pycocotools takes without a word.

    >>> run_lengths("0250l0")  # 2 x 2 pixels in the top left corner of 7 rows and 6 columns
    [0, 2, 5, 2, 33]
    """
    runs: list[int] = _decoded([counts])[0].tolist()
    return runs


def _characters(texts: Sequence[str]) -> tuple[Array, Array, Array]:
    """Six bits of each character, lengths of the texts, and the characters that end a number; ValueError for others."""
    joined = "".join(texts)
    bits = np.frombuffer(joined.encode("latin-1", "replace"), np.uint8).astype(np.int64) - 48
    lengths = np.array([len(text) for text in texts], np.int64)
    last = np.flatnonzero(bits < 32)
    whole = joined.isascii() and all(texts) and (bits[np.cumsum(lengths) - 1] < 32).all()
    if not whole or ((bits < 0) | (bits > 63)).any() or (np.diff(last, prepend=-1) > 7).any():
        raise ValueError("counts are not the text of a run-length code")
    return bits, lengths, last


def _decoded(texts: Sequence[str]) -> tuple[Array, Array, Array]:
    """The runs (R,) int64 of N counts one after the other, the number of the counts of each, and its place therein.

    A number is groups of five bits, lowest first, each a character from "0" on whose sixth bit says that another
    follows; after the third, a number is the difference to the one before the last (pycocotools, maskApi.c).
    """
    bits, lengths, last = _characters(texts)
    groups = np.diff(last, prepend=-1)
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
