"""One tif file -> its pixels as they are stored, or a refusal: tifffile may read what a cut-off file lacks as zeros.

Letters: H height, W width, S samples of a pixel.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from cellseg.codes import Array

PLANES = ("YX", "YXS", "YXC", "SYX", "CYX")
"""axes that are one picture; tifffile has S for the samples of a pixel and C for channels in pages of their own"""

MOST_BYTES = 2**31
"""of pixels that are read at once; a file of a few kilobytes can claim more than any memory holds"""


class TooLargeError(ValueError):
    """An image that cannot be read at once."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(
            f"{path}: expected at most {MOST_BYTES / 2**30:g} GiB of pixels to read at once, "
            f"found {size / 2**30:,.1f}; cut it into pieces, or save it as an 8-bit tif in tiles, which "
            "`cellseg predict` reads one by one"
        )


@dataclass(frozen=True)
class Picture:
    """What one tif holds."""

    pixels: Array
    """(H, W) or (H, W, S), dtype as stored"""
    photometric: str
    """MINISBLACK, MINISWHITE, RGB, PALETTE, YCBCR, SEPARATED, …: how the samples mean colours"""
    color_table: Array | None
    """(3, values) uint16, of palette pictures"""


def read_tif(path: Path) -> Picture:
    """The one picture of a tif.

    Raises FileNotFoundError, and ValueError for a file that is cut off, damaged, not one picture, or too large.
    """
    with opened(path) as (series, axes):
        if series.nbytes > MOST_BYTES:
            raise TooLargeError(path, series.nbytes)
        pixels = series.asarray().reshape(
            [n for name, n in zip(series.axes, series.shape, strict=True) if name in axes]
        )
        if axes in ("SYX", "CYX"):
            pixels = np.moveaxis(pixels, 0, -1)
        return Picture(pixels, photometric_of(series.keyframe), series.keyframe.colormap)


def tif_size(path: Path) -> tuple[int, int]:
    """(height, width) of the picture of a tif, from its header; errors as read_tif."""
    with opened(path) as (series, _):
        return series.shape[series.axes.index("Y")], series.shape[series.axes.index("X")]


def photometric_of(page: tifffile.TiffPage) -> str:
    """How decoded samples of a page mean colours, as in Picture."""
    name: str = tifffile.PHOTOMETRIC(page.photometric).name
    if name == "YCBCR" and page.compression == tifffile.COMPRESSION.JPEG:
        return "RGB"  # the JPEG decoder has converted it
    return name


@contextmanager
def opened(path: Path) -> Iterator[tuple[tifffile.TiffPageSeries, str]]:
    """The one series of a tif that is whole, and its axes without those of length 1.

    Smaller copies of the picture, as a pyramid has them, are no pictures of their own. Errors as read_tif, also those
    of the body.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            _check_whole(tif)
            pictures = [series for series in tif.series if not series.keyframe.is_reduced]
            if len(pictures) != 1:
                raise ValueError(f"{len(pictures)} pictures")
            (series,) = pictures
            lengths = zip(series.axes, series.shape, strict=True)
            axes = "".join(name for name, length in lengths if length != 1 or name in "YX")
            if axes not in PLANES:
                raise ValueError(f"axes {series.axes} of lengths {series.shape}")
            yield series, axes
    except TooLargeError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; is the name right, and the data set complete?") from None
    except Exception as error:  # tifffile and its decoders raise errors of a dozen kinds
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ValueError:
    """The refusal, in one line, of a file that a decoder stumbled over."""
    found = " ".join(f"{error}".split())[:120] or type(error).__name__
    return ValueError(f"{path}: expected a whole tif of one picture, found {found}; copy or save it again")


def _check_whole(tif: tifffile.TiffFile) -> None:
    """Raise ValueError where part of a tif lies beyond its end; tifffile only logs it, or reads zeros."""
    end = tif.filehandle.size
    if end == 0 or not len(tif.pages):
        raise ValueError(f"{end} bytes without a page")
    for page in tif.pages:
        tif.filehandle.seek(page.offset)
        count = struct.unpack(tif.tiff.tagnoformat, tif.filehandle.read(tif.tiff.tagnosize))[0]
        directory_end = page.offset + tif.tiff.tagnosize + count * tif.tiff.tagsize + tif.tiff.offsetsize
        read = len(page.tags) if isinstance(page, tifffile.TiffPage) else count  # a frame shares its keyframe's tags
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if directory_end > end or read < count or any(start + length > end for start, length in segments):
            raise ValueError(f"a file cut off after {end} bytes")
        if any(length == 0 for _, length in segments):
            raise ValueError("a part without pixels")
        contiguous = len(segments) == 1 and page.is_contiguous  # tifffile may join strips that follow each other
        if len(segments) != math.prod(page.chunked) and not contiguous:
            raise ValueError(f"{len(segments)} of {math.prod(page.chunked)} parts")
