"""An image -> the tiles in which a network sees it, and which of them keeps a detection.

A tile is a window of the image at network size, which is never made as a whole: its pixels are those that it would have
there. It begins at a multiple of the network's coarsest stride, so that a cell is seen in a tile as it is in the whole.
Letters: H x W size of an image, h x w of a window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from cellseg.codes import Array
from cellseg.config import PredictConfig
from cellseg.resampling import Part, network_size, resized
from cellseg.slides import Image

MARGIN = 1 / 8
"""of the overlap: how far a core reaches beyond its seam. Two tiles place one cell a little differently, and where each
leaves it to the other it is lost; found by both, one of the two is dropped (`seams.py`)"""


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tile:
    """A window of an image at network size."""

    rows: slice
    columns: slice
    """network pixels"""
    image_hw: tuple[int, int]
    whole_hw: tuple[int, int]
    """size of the image, and its size at network size"""
    core: Box
    """xyxy, image pixels: the tile keeps a detection whose centre lies in it"""
    alone: Box
    """xyxy, image pixels: no other tile sees a box that lies in it"""

    @property
    def network_hw(self) -> tuple[int, int]:
        """Its size as the network sees it."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def corner_xy(self) -> tuple[int, int]:
        """Its top left network pixel."""
        return self.columns.start, self.rows.start

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Network pixels per image pixel."""
        return self.whole_hw[1] / self.image_hw[1], self.whole_hw[0] / self.image_hw[0]

    @property
    def inside(self) -> Box:
        """xyxy, image pixels: a box that reaches beyond may go on where the tile does not see it."""
        (across, down), (height, width) = self.scale_xy, self.whole_hw
        return (
            (self.columns.start + 1) / across if self.columns.start else -inf,
            (self.rows.start + 1) / down if self.rows.start else -inf,
            (self.columns.stop - 1) / across if self.columns.stop < width else inf,
            (self.rows.stop - 1) / down if self.rows.stop < height else inf,
        )

    @property
    def network_core(self) -> list[float]:
        """The core xyxy in network pixels from the tile's corner on."""
        places = zip(self.core, self.corner_xy * 2, self.scale_xy * 2, strict=True)
        return [edge * scale - corner for edge, corner, scale in places]

    def read(self, image: Image) -> Array:
        """Its pixels (h, w, 3) uint8, of which no more is read than lies under it."""
        if self.network_hw == self.whole_hw:
            return resized(image[:, :], self.whole_hw)
        part = Part(self.image_hw, self.whole_hw, self.rows, self.columns)
        return part.made_of(image[part.rows, part.columns])


def tiles(size_hw: Sequence[int], config: PredictConfig, stride: int = 1) -> Iterator[Tile]:
    """The tiles that cover an image, row by row, each beginning at a multiple of the stride, in network pixels.

    Cores cover it too: they meet in the middle of an overlap, and reach beyond that seam by MARGIN.
    """
    whole_hw = network_size(size_hw, config.scale_of(size_hw))
    rows, columns = (_spans(length, config.tile or length, config.shared, stride) for length in whole_hw)
    down, across = (original / length for original, length in zip(size_hw, whole_hw, strict=True))
    for y in rows:
        for x in columns:
            core, alone = (
                (a[0] * across, b[0] * down, a[1] * across, b[1] * down)
                for a, b in ((x.core, y.core), (x.alone, y.alone))
            )
            yield Tile(slice(y.start, y.stop), slice(x.start, x.stop), (size_hw[0], size_hw[1]), whole_hw, core, alone)


@dataclass(frozen=True)
class _Span:
    """A tile along one side of an image, network pixels."""

    start: int
    stop: int
    core: tuple[float, float]
    alone: tuple[float, float]


def _spans(length: int, side: int, overlap: int, stride: int) -> list[_Span]:
    """Tiles spread as evenly as strides allow, of which the last may be shorter; one where none is needed more."""
    if length <= side:
        return [_Span(0, length, (-inf, inf), (-inf, inf))]
    if 2 * stride > side - overlap:  # it would take twice the tiles, or more
        stride = 1
    step = side - overlap - (stride - 1)  # a tile may move on by so much to its stride
    count = 1 + -(-(length - side) // step)
    starts = [-(-k * (length - side) // ((count - 1) * stride)) * stride for k in range(count)]
    ends = [min(start + side, length) for start in starts]
    seams = [-inf, *((end + start) / 2 for end, start in zip(ends, starts[1:], strict=False)), inf]
    beyond = max(1, overlap * MARGIN)
    return [
        _Span(start, end, (low - beyond, high + beyond), (before, after))
        for start, end, (low, high), before, after in zip(
            starts, ends, pairwise(seams), [-inf, *ends[:-1]], [*starts[1:], inf], strict=True
        )
    ]
