"""One image file -> (H, W, 3) uint8: the one place that knows about alpha, bit depth and channel order.

Letters: H height, W width, S samples of a pixel.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cellseg.codes import Array
from cellseg.tif import MOST_BYTES, Picture, TooLargeError, read_tif, tif_size

PERCENTILES = (0.1, 99.9)
"""of all channels together: what becomes 0 and 255 in an image of more than 8 bits"""
TIF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_START = b"\x89PNG"
PNG_END = b"IEND\xaeB\x60\x82"
JPEG_START = b"\xff\xd8"
JPEG_SCAN = b"\xff\xda"
JPEG_END = b"\xff\xd9"
Image.MAX_IMAGE_PIXELS = None  # it reads headers alone here; what is decoded is limited by MOST_BYTES


def read_image(path: Path, channel_order: str = "rgb", color: str = "rgb") -> Array:
    """The image of a tif, png or jpg as (H, W, 3) uint8, in true RGB or as luminance three times.

    channel_order "bgr" is for files whose red and blue are swapped. Alpha is dropped. uint8 stays as it is; uint16 and
    floats are mapped linearly, PERCENTILES to 0 and 255. Raises FileNotFoundError, and ValueError for a file that is
    empty, cut off, no such image, or of another depth or number of channels.
    """
    if kind_of(path) == "tif":
        return rendered(path, read_tif(path), channel_order, color)
    return recolored(_three_channels(path, _decoded(path)), channel_order, color)


def rendered(path: Path, picture: Picture, channel_order: str = "rgb", color: str = "rgb") -> Array:
    """A tif's picture, or of 8 bits a window of it, as read_image returns it; the path is for the errors."""
    samples = _sampled(path, picture.pixels, picture.photometric, picture.color_table)
    return recolored(_three_channels(path, samples), channel_order, color)


def as_image(samples: Array, name: str) -> Array:
    """Samples (H, W) or (H, W, S) as read_image returns those of a file; the name is for errors."""
    if samples.ndim not in (2, 3):
        raise _refusal(Path(name), f"an array of shape {samples.shape}")
    return _three_channels(Path(name), samples)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header; errors as read_image, as far as the header tells."""
    if kind_of(path) == "tif":
        return tif_size(path)
    try:
        with Image.open(path) as header:
            return header.height, header.width
    except Exception as error:  # Pillow raises errors of several kinds
        raise _refusal(path, "a png or jpg with a broken header") from error


def recolored(image: Array, channel_order: str = "rgb", color: str = "rgb") -> Array:
    """An image (H, W, 3) as its file has it, in true RGB, or as ITU-R 601 luminance three times.

    >>> recolored(np.array([[[200, 0, 10]]], np.uint8), "bgr").tolist()
    [[[10, 0, 200]]]
    """
    if channel_order not in ("rgb", "bgr"):
        raise ValueError(f"channel_order: expected rgb or bgr, got {channel_order!r}")
    if color not in ("rgb", "gray"):
        raise ValueError(f"color: expected rgb or gray, got {color!r}")
    image = np.ascontiguousarray(image[:, :, ::-1]) if channel_order == "bgr" else image
    if color == "gray":
        return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    return image


def kind_of(path: Path) -> str:
    """What a file is by its first bytes: names lie."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; is the name right, and the data set complete?")
    if path.is_dir():
        raise _refusal(path, "a folder")
    with path.open("rb") as file:
        start = file.read(4)
    kinds = {**dict.fromkeys(TIF_STARTS, "tif"), PNG_START: "png"}
    kind = "jpg" if start[:2] == JPEG_START else kinds.get(start)
    if kind is None:
        raise _refusal(path, f"bytes that start with {start!r}" if start else "an empty file")
    return kind


def _decoded(path: Path) -> Array:
    """Samples (H, W) or (H, W, 3) of a png or jpg, without alpha, not turned by the orientation tag."""
    height, width = image_size(path)
    if 4 * height * width > MOST_BYTES:
        raise TooLargeError(path, 4 * height * width)
    content = path.read_bytes()
    png_cut = content.startswith(PNG_START) and PNG_END not in content
    jpeg_cut = content.startswith(JPEG_START) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN)
    if png_cut or jpeg_cut:
        raise _refusal(path, f"a file cut off after {len(content)} bytes")
    try:
        samples = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        samples = None
    if samples is None:
        raise _refusal(path, "a damaged file")
    return samples if samples.ndim == 2 else samples[:, :, 2::-1]  # from B, G, R, A


def _sampled(path: Path, pixels: Array, photometric: str, color_table: Array | None) -> Array:
    """The samples of a tif as brightness or RGB, whatever their photometric interpretation."""
    if photometric == "PALETTE" and color_table is not None:
        depth = 257 if color_table.max() > 255 else 1  # 65535 / 255; some writers fill the table with 8-bit values
        colors: Array = np.rint(color_table.T[pixels] / depth).astype(np.uint8)
        return colors
    if photometric == "MINISWHITE":
        return -pixels if pixels.dtype.kind == "f" else ~pixels
    if photometric not in ("MINISBLACK", "RGB"):
        raise _refusal(path, f"colours stored as {photometric}")
    return pixels


def _three_channels(path: Path, samples: Array) -> Array:
    """(H, W, 3) uint8 of samples (H, W) or (H, W, S) of any depth."""
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if samples.shape[2] not in (1, 3, 4) or 0 in samples.shape:
        raise _refusal(path, f"shape {samples.shape}")
    if samples.shape[2] == 4 and samples.dtype == np.uint8:  # OpenCV drops alpha ten times as fast as a copy
        return cv2.cvtColor(np.ascontiguousarray(samples), cv2.COLOR_RGBA2RGB)
    samples = _eight_bits(path, samples[:, :, :3])
    return np.ascontiguousarray(samples) if samples.shape[2] == 3 else np.repeat(samples, 3, axis=2)


def _eight_bits(path: Path, samples: Array) -> Array:
    """Samples as uint8."""
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype == bool:
        return samples * np.uint8(255)
    if samples.dtype != np.uint16 and samples.dtype.kind != "f":
        raise _refusal(path, f"samples of type {samples.dtype}")
    if not np.isfinite(samples).all():
        raise _refusal(path, "samples that are NaN or infinite")
    samples = samples.astype(np.float64)
    low, high = np.percentile(samples, PERCENTILES)
    if low == high:  # few pixels stand out from the rest
        low, high = samples.min(), samples.max()
    scaled = (samples - low) * (255 / (high - low) if high > low else 0)
    rounded: Array = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return rounded


def _refusal(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected a tif, png or jpg of 1, 3 or 4 channels, uint8, uint16 or float, found {found}; "
        "copy it again, or save it as 8-bit RGB"
    )
