"""An image and its cells as a picture to look at: outlines in the colours of their classes, and a legend below.

Letters: H x W size of the image, h x w of a picture.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from cellseg.cells import Cells
from cellseg.codes import Array
from cellseg.colors import color_of
from cellseg.slides import Image
from cellseg.whole_files import whole

LARGEST = 4096
"""pixels a side over which an image is shown reduced"""
BAND = 256
"""rows of an image that are reduced together, about"""
LINE = 40
"""lines of the legend over the side of a picture"""
SMALLEST_LINE = 20
"""pixels"""


def write(cells: Cells, image: Image, path: Path) -> None:
    """Write the picture of an image (H, W, 3) uint8 and its cells as png."""
    picture = with_legend(outlined(cells, image), cells.of_classes())
    with whole(path) as partial:
        Picture.fromarray(picture).save(partial, format="PNG")


def outlined(cells: Cells, image: Image) -> Array:
    """The image, reduced to LARGEST at most, as a picture (h, w, 3) uint8 with the outermost pixels of its cells.

    Each cell shows, however much the image is reduced, by a whole number.
    """
    reduction = -(-max(cells.size_hw) // LARGEST)
    picture = reduced(image, reduction)
    for ((x, y), window), label in zip(cells.windows(), cells.labels.tolist(), strict=True):
        padded = np.zeros((window.shape[0] + 2, window.shape[1] + 2), bool)
        padded[1:-1, 1:-1] = window
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        rows, columns = np.nonzero(window & ~inner)
        picture[(rows + y) // reduction, (columns + x) // reduction] = color_of(label)
    return picture


def reduced(image: Image, reduction: int) -> Array:
    """A copy of an image (H, W, 3), each pixel the mean of a square of `reduction` pixels a side; read band by band."""
    height, width, _ = image.shape
    if reduction == 1:
        return image[0:height, 0:width].copy()
    size = (-(-width // reduction), -(-height // reduction))
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    step = max(1, BAND // reduction) * reduction
    for top in range(0, height, step):
        band = image[top : top + step, 0:width]
        below, beside = -len(band) % reduction, -width % reduction
        band = cv2.copyMakeBorder(band, 0, below, 0, beside, cv2.BORDER_REPLICATE)
        place = picture[top // reduction : (top + step) // reduction]
        place[:] = cv2.resize(band, (size[0], len(place)), interpolation=cv2.INTER_AREA)
    return picture


def with_legend(picture: Array, counts: Mapping[str, int]) -> Array:
    """The picture (h, w, 3) uint8 above a legend: colour, name and number of cells of the classes 1..C."""
    height, width, _ = picture.shape
    line = max(SMALLEST_LINE, min(height, width) // LINE)
    font = ImageFont.load_default(line * 0.7)
    texts = [f"{name}: {count}" for name, count in counts.items()]
    length = max(int(font.getlength(text)) for text in texts) + 2 * line
    across = max(1, width // length)
    canvas = Picture.new("RGB", (max(width, length), height - (-len(texts) // across) * line), "white")
    canvas.paste(Picture.fromarray(picture))
    draw = ImageDraw.Draw(canvas)
    for label, text in enumerate(texts, start=1):
        x, y = (label - 1) % across * length, height + (label - 1) // across * line
        swatch = (x + line // 2, y + line // 4, x + line, y + 3 * line // 4)
        draw.rectangle(swatch, fill=color_of(label), outline="gray")
        draw.text((x + 3 * line // 2, y + line / 2), text, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)
