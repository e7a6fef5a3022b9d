"""An image -> the tiles in which a network sees it, and which of them keeps a detection.

Tiles are windows of whole image pixels, each resized on its own, as a training view is: no larger picture is ever made.
Letters: H x W size of an image, h x w of a window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from cellseg.augment import network_size, resized
from cellseg.codes import Array
from cellseg.config import PredictConfig
from cellseg.slides import Image

MARGIN = 1 / 8
"""of the overlap: how far a core reaches beyond its seam. Two tiles place one cell a little differently, and where each
leaves it to the other it is lost; found by both, one of the two is dropped (`seams.py`)"""


@dataclass(frozen=True)
class Tile:
    """A window of an image."""

    rows: slice
    columns: slice
    network_hw: tuple[int, int]
    """its size as the network sees it"""
    core: tuple[float, float, float, float]
    """xyxy, image pixels: the tile keeps a detection whose centre lies in it"""
    alone: tuple[float, float, float, float]
    """xyxy, image pixels: no other tile sees a box that lies in it"""

    @property
    def corner_xy(self) -> tuple[int, int]:
        """Its top left pixel."""
        return self.columns.start, self.rows.start

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Network pixels per image pixel."""
        height, width = self.network_hw
        return width / (self.columns.stop - self.columns.start), height / (self.rows.stop - self.rows.start)

    @property
    def network_core(self) -> list[float]:
        """The core xyxy in network pixels of the tile."""
        places = zip(self.core, self.corner_xy * 2, self.scale_xy * 2, strict=True)
        return [(edge - corner) * scale for edge, corner, scale in places]

    def read(self, image: Image) -> Array:
        """The image's pixels under the tile at network size."""
        return resized(image[self.rows, self.columns], self.network_hw)


def tiles(size_hw: Sequence[int], config: PredictConfig) -> Iterator[Tile]:
    """The tiles that cover an image, row by row, all of one size.

    Cores cover it too: they meet in the middle of an overlap, and reach beyond that seam by MARGIN.
    """
    scale = config.scale_of(size_hw)
    side = max(1, round(config.tile / scale))
    overlap = min(round(config.overlap / scale), side - 1)
    rows, columns = (_spans(length, side if config.tile else length, overlap) for length in size_hw)
    network_hw = tuple(
        network_size((spans[0].stop, spans[0].stop), scale)[0] if len(spans) == 1 else config.tile
        for spans in (rows, columns)
    )
    for y in rows:
        for x in columns:
            yield Tile(
                slice(y.start, y.stop),
                slice(x.start, x.stop),
                (network_hw[0], network_hw[1]),
                (x.core[0], y.core[0], x.core[1], y.core[1]),
                (x.alone[0], y.alone[0], x.alone[1], y.alone[1]),
            )


@dataclass(frozen=True)
class _Span:
    """A tile along one side of an image."""

    start: int
    stop: int
    core: tuple[float, float]
    alone: tuple[float, float]


def _spans(length: int, side: int, overlap: int) -> list[_Span]:
    """Evenly spread tiles; one that takes all where that is no longer than a tile."""
    if length <= side:
        return [_Span(0, length, (-inf, inf), (-inf, inf))]
    count = -(-(length - overlap) // (side - overlap))
    starts = [round(k * (length - side) / (count - 1)) for k in range(count)]
    seams = [-inf, *((a + side + b) / 2 for a, b in pairwise(starts)), inf]
    beyond = max(1, overlap * MARGIN)
    stops = [-inf, *(start + side for start in starts)]  # that of the tile before
    return [
        _Span(start, start + side, (seams[k] - beyond, seams[k + 1] + beyond), (stops[k], [*starts, inf][k + 1]))
        for k, start in enumerate(starts)
    ]
