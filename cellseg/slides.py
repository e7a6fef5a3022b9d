"""A large tif as an image of which only windows are read, part by part: its strips or tiles.

Letters: H x W size of the image, h x w of a window or part, S samples of a pixel.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import tifffile

from cellseg.codes import Array
from cellseg.images import kind_of, read_image, rendered
from cellseg.tif import Picture, damaged, opened, photometric_of

LARGE = 2**24
"""pixels of an image over which it is not read whole"""
CACHE_BYTES = 2**27
"""of decoded parts that are kept; of strips at least those under one window, which the next beside it needs too"""
LARGEST_PART = 2**26
"""bytes of a part over which the whole image is as well read at once"""
PLAIN_PART = 2**20
"""about the bytes that are read at once from pixels that lie in the file as they are"""


class Image(Protocol):
    """(H, W, 3) uint8: an array, or a file of which windows alone are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """H, W and 3."""

    def __getitem__(self, window: tuple[slice, slice], /) -> Array:
        """Rows and columns (h, w, 3) of it."""


@dataclass(frozen=True)
class Parts:
    """The strips or tiles of one page, from left to right and from top to bottom."""

    shape: tuple[int, int, int]
    """H, W and S"""
    part_hw: tuple[int, int]
    """of a whole part; those at the right and lower border may be smaller"""
    offsets: Sequence[int]
    byte_counts: Sequence[int]
    decode: Callable[[bytes, int], Array]
    """bytes and number of a part -> (h, w, S) uint8"""
    photometric: str
    color_table: Array | None

    @property
    def across(self) -> int:
        """Parts side by side."""
        return -(-self.shape[1] // self.part_hw[1])


class Slide:
    """An image (H, W, 3) uint8 in a file: `slide[rows, columns]` is the window (h, w, 3) of what read_image returns."""

    def __init__(
        self, path: Path, parts: Parts, channel_order: str = "rgb", color: str = "rgb", cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.path, self.parts, self.channel_order, self.color = path, parts, channel_order, color
        self.shape = (*parts.shape[:2], 3)
        self.cache_bytes = self.room = cache_bytes
        self._kept: OrderedDict[int, Array] = OrderedDict()  # the part that was used last comes last
        self._kept_bytes = 0

    def __getitem__(self, window: tuple[slice, slice], /) -> Array:
        """Rows and columns (h, w, 3) uint8. Raises ValueError where a part is damaged."""
        (top, bottom, _), (left, right, _) = (
            each.indices(length) for each, length in zip(window, self.shape[:2], strict=True)
        )
        height, width = self.parts.part_hw
        if self.parts.across == 1:
            strips = -(-bottom // height) - top // height
            self.room = max(self.cache_bytes, strips * height * width * self.parts.shape[2])
        pixels = np.empty((bottom - top, right - left, self.parts.shape[2]), np.uint8)
        with self.path.open("rb") as file:
            for y in range(top // height * height, bottom, height):
                for x in range(left // width * width, right, width):
                    part = self._part(file, y // height * self.parts.across + x // width)
                    place = pixels[max(y - top, 0) : y + height - top, max(x - left, 0) : x + width - left]
                    place[:] = part[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
        picture = Picture(pixels, self.parts.photometric, self.parts.color_table)
        return rendered(self.path, picture, self.channel_order, self.color)

    def _part(self, file: BinaryIO, number: int) -> Array:
        """A decoded part, from the cache where it is still there."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        file.seek(self.parts.offsets[number])
        try:
            part = self.parts.decode(file.read(self.parts.byte_counts[number]), number)
        except Exception as error:  # decoders raise errors of a dozen kinds
            raise damaged(self.path, error) from error
        self._kept[number] = part
        self._kept_bytes += part.nbytes
        while self._kept_bytes > self.room:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return part


def open_image(path: Path, channel_order: str = "rgb", color: str = "rgb") -> Image:
    """The image of read_image, which also tells of the errors; a large tif is read window by window.

    That takes 8 bits and strips or tiles: deeper pixels are scaled by percentiles of the whole image, which is then
    read whole, as is a small one. A file that is cut off is refused here, a damaged part when a window needs it.
    """
    parts = parts_of(path) if kind_of(path) == "tif" else None
    return Slide(path, parts, channel_order, color) if parts else read_image(path, channel_order, color)


def parts_of(path: Path) -> Parts | None:
    """The parts of a large tif, None where it is to be read whole; errors as read_tif."""
    with opened(path) as (series, axes):
        page = series.keyframe
        height, width, samples = page.shaped[2:]
        photometric = photometric_of(page)
        if (
            height * width <= LARGE
            or axes not in ("YX", "YXS")
            or len(series.pages) != 1
            or page.dtype != np.uint8
            or (page.bitspersample, page.fillorder) != (8, 1)
            or samples not in (1, 3, 4)
            or photometric not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")
        ):
            return None
        shape = (height, width, samples)
        if page.is_contiguous:
            return _plain_parts(shape, page.dataoffsets[0], photometric, page.colormap) if page.predictor == 1 else None
        part_hw = (page.chunks[0], page.chunks[1])
        if part_hw[0] * part_hw[1] * samples > LARGEST_PART:
            return None
        return Parts(shape, part_hw, page.dataoffsets, page.databytecounts, _decoder(page), photometric, page.colormap)


def _decoder(page: tifffile.TiffPage) -> Callable[[bytes, int], Array]:
    """Bytes and number of a part -> its pixels."""
    decoded = page.decode  # made here, where the file is open
    jpeg = page.compression == tifffile.COMPRESSION.JPEG
    options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if jpeg else {}

    def decode(content: bytes, number: int) -> Array:
        pixels: Array | None = decoded(content, number, **options)[0]  # (1, h, w, S)
        if pixels is None:
            raise ValueError("a part without pixels")
        part: Array = pixels[0]
        return part

    return decode


def _plain_parts(shape: tuple[int, int, int], offset: int, photometric: str, color_table: Array | None) -> Parts:
    """Rows that lie behind each other in the file as they are, in parts of some rows."""
    height, width, samples = shape
    row = width * samples
    rows = max(1, PLAIN_PART // row)
    starts = range(0, height, rows)

    def decode(content: bytes, number: int) -> Array:
        return np.frombuffer(content, np.uint8).reshape(min(rows, height - starts[number]), width, samples)

    offsets = [offset + start * row for start in starts]
    counts = [min(rows, height - start) * row for start in starts]
    return Parts(shape, (rows, width), offsets, counts, decode, photometric, color_table)
