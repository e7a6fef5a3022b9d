"""Images at another size, whole or in part.

Letters: H x W size of an image, h x w of what is read of it.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.sparse import csr_array

from cellseg.codes import Array


def network_size(size_hw: Sequence[int], scale: float) -> tuple[int, int]:
    """Height and width at `scale` network pixels a pixel, at least one each."""
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def resized(image: Array, size_hw: Sequence[int]) -> Array:
    """The image (H, W, 3) uint8 at another size; pixel areas stay aligned."""
    if image.shape[:2] == tuple(size_hw):
        return image
    interpolation = cv2.INTER_AREA if size_hw[0] < image.shape[0] else cv2.INTER_LINEAR
    other: Array = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=interpolation)
    return other


class Part:
    """Rows and columns of a resized image, made of the pixels under them alone."""

    def __init__(self, size_hw: Sequence[int], new_hw: Sequence[int], rows: slice, columns: slice) -> None:
        """Of an image of size_hw that is resized to new_hw, of which rows and columns are wanted."""
        shrinks = new_hw[0] < size_hw[0]
        self.same = tuple(size_hw) == tuple(new_hw)
        self._weights = [_weights(*axis, shrinks) for axis in zip(size_hw, new_hw, (rows, columns), strict=True)]
        self.rows, self.columns = (_span(each) for each in self._weights)
        """what is read of the image"""

    def made_of(self, pixels: Array) -> Array:
        """The part (…, …, 3) uint8, given the image's `rows` and `columns` (h, w, 3); as `resized` to a grey level."""
        if self.same:
            return pixels
        height, width, channels = pixels.shape
        down, across = (
            weights[:, span.start : span.stop]
            for weights, span in zip(self._weights, (self.rows, self.columns), strict=True)
        )
        tall = (down @ pixels.reshape(height, -1).astype(np.float32)).reshape(-1, width, channels)
        turned = np.ascontiguousarray(tall.transpose(1, 0, 2)).reshape(width, -1)
        whole = (across @ turned).reshape(across.shape[0], -1, channels).transpose(1, 0, 2)
        grey: Array = np.rint(whole).clip(0, 255).astype(np.uint8)
        return grey


def _weights(length: int, new_length: int, wanted: slice, shrinks: bool) -> csr_array:
    """Weights (wanted, length) of the pixels along one axis that the wanted ones are sums of."""
    places = np.arange(wanted.start, wanted.stop)
    factor = length / new_length
    if shrinks:  # each is the mean of the area that it covers
        begins, ends = places * factor, (places + 1) * factor
        firsts = np.floor(begins + 1e-6).astype(np.int64)
        columns = firsts[:, None] + np.arange(int(np.ceil(factor)) + 1)
        covered = np.minimum(columns + 1, ends[:, None]) - np.maximum(columns, begins[:, None])
        shares = covered.clip(0) / factor
    else:  # linear between the centres of two pixels
        at = ((places + 0.5) * factor - 0.5).clip(0, length - 1)
        firsts = np.minimum(at.astype(np.int64), max(length - 2, 0))
        columns = firsts[:, None] + np.arange(2)
        shares = np.stack([1 - (at - firsts), at - firsts], axis=1)
    kept = (shares > 0) & (columns < length)
    owners = np.repeat(np.arange(len(places)), kept.sum(axis=1))
    return csr_array((shares[kept].astype(np.float32), (owners, columns[kept])), shape=(len(places), length))


def _span(weights: csr_array) -> slice:
    """From the first to the last pixel that has a weight."""
    return slice(int(weights.indices.min()), int(weights.indices.max()) + 1)
