"""A data set -> a Survey: all that `cellseg inspect` tells follows from it. Files are read once, and images let go.

Letters: N images, C classes, H height, W width.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg.annotations import Annotation, read_label_map
from cellseg.codes import Array
from cellseg.config import DatasetConfig
from cellseg.data_folder import noted
from cellseg.dataset import DataSet, Record, open_dataset, test_images
from cellseg.fingerprint import Fingerprint, joined, measured
from cellseg.images import read_image
from cellseg.tif import tif_size


@dataclass(frozen=True)
class SeenPixels:
    """What was seen of the pixels of one image."""

    name: str
    digest: str
    """of the pixels as the file has them"""
    blank: bool
    """one colour all over"""


@dataclass(frozen=True, eq=False)
class SeenCells:
    """What was seen of the cells of one image, beside its Fingerprint."""

    annotated: Array
    """(C,) int64 of each class, also those that others hide, but no crowds"""
    hidden: int
    """that lost pixels to a smaller cell of their class"""
    shared: int
    """that have a pixel in common with a cell of another class"""


@dataclass(frozen=True, eq=False)
class Survey:
    """What was seen of a data set."""

    data: DataSet
    found: Fingerprint
    pixels: tuple[SeenPixels, ...]
    """of the annotated images"""
    cells: tuple[SeenCells, ...]
    tests: tuple[SeenPixels, ...] | None
    """of the test images; None where there is no folder of them"""
    broken: tuple[str, ...]
    """which files cannot be read, and why; one line each"""

    @property
    def annotated(self) -> Array:
        """Annotated cells (N, C) of each image and class."""
        return np.stack([cells.annotated for cells in self.cells])


def survey(root: Path, config: DatasetConfig) -> Survey:
    """What is seen of the data set that `open_dataset` finds at root, but for what is broken.

    Raises ValueError where no image can be read, and FileNotFoundError and ValueError where there is no data set.
    """
    broken: list[str] = []
    parts: list[Fingerprint] = []
    pixels: list[SeenPixels] = []
    cells: list[SeenCells] = []

    def look(record: Record, annotation: Annotation, image: Array, label_maps: Array) -> None:
        parts.append(measured(record.name, label_maps))
        pixels.append(_seen_pixels(record.name, image))
        cells.append(_seen_cells(annotation, label_maps))

    data = open_dataset(root, config, broken=broken, look=look)
    broken += _broken_beside(root, data, broken)
    if not parts:
        raise ValueError("\n".join([f"{root}: expected an image that can be read, found none:", *broken]))
    tests = _tests(data.root, broken)
    return Survey(data, joined(parts), tuple(pixels), tuple(cells), tests, tuple(sorted(broken)))


def _seen_pixels(name: str, image: Array) -> SeenPixels:
    total = hashlib.blake2b(f"{image.shape}".encode(), digest_size=16)
    total.update(image.tobytes())
    return SeenPixels(name, total.hexdigest(), bool((image == image[0, 0]).all()))


def _seen_cells(annotation: Annotation, label_maps: Array) -> SeenCells:
    labels = [cell.label for cell in annotation.cells(label_maps) if not cell.crowd]
    annotated = np.bincount(np.array(labels, np.int64), minlength=len(label_maps) + 1)[1:]
    common = (label_maps > 0).sum(axis=0) > 1
    shared = sum(len(np.setdiff1d(label_map[common], [0])) for label_map in label_maps)
    return SeenCells(annotated, annotation.overlaps(label_maps), shared)


def _broken_beside(root: Path, data: DataSet, broken: Iterable[str]) -> list[str]:
    """Why label maps cannot be read that lie beside a broken file, with which their image was given up."""
    known = {message.partition(": ")[0] for message in broken}
    opened = {record.image_path.parent for record in data.records}
    more: list[str] = []
    for path in sorted((root / "train").glob("*/class*.tif")):  # a COCO file has none
        if path.parent not in opened and str(path) not in known:
            with noted(more):
                read_label_map(path, tif_size(path))
    return more


def _tests(root: Path, broken: list[str]) -> tuple[SeenPixels, ...] | None:
    """The test images of the competition's layout."""
    if not (root / "test_release").exists():
        return None
    seen = []
    with noted(broken):
        for image in test_images(root, broken):
            with noted(broken):
                seen.append(_seen_pixels(image.file_name, read_image(image.path)))
    return tuple(seen)
