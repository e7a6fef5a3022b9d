"""The cells of one image, as its annotation has them -> label maps and run-length codes.

Letters: C classes, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from cellseg.codes import Array, Code
from cellseg.label_maps import codes_of, ids_of, paint
from cellseg.tif import read_tif

LARGEST_ID = 2**31 - 1


class Cell(NamedTuple):
    """One annotated cell."""

    code: Code
    label: int  # 1..C
    crowd: bool = False

    def to_coco(self, image_id: int, annotation_id: int) -> dict[str, Any]:
        """It as an annotation of a COCO dict."""
        return {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": self.label,
            "bbox": coco_mask.toBbox(self.code).tolist(),
            "area": int(coco_mask.area(self.code)),
            "iscrowd": int(self.crowd),
            "segmentation": self.code,
        }


class Annotation(Protocol):
    """The cells of one image."""

    def label_maps(self, size_hw: tuple[int, int]) -> Array:
        """(C, H, W) int32, ids unique within the image."""

    def cells(self, label_maps: Array) -> list[Cell]:
        """The cells, of which label_maps are the label maps."""

    def overlaps(self, label_maps: Array) -> int:
        """Cells that lost pixels to a smaller cell of their class."""


@dataclass(frozen=True)
class ClassFiles:
    """Cells in one label tif a class; a class without a file has no cell."""

    paths: Mapping[int, Path]
    """by class, 1..C"""
    num_cell_classes: int

    def label_maps(self, size_hw: tuple[int, int]) -> Array:
        """(C, H, W) int32; ids as in the files, unless two files share one: then all are renumbered."""
        label_maps = np.zeros((self.num_cell_classes, *size_hw), np.int32)
        for label, path in self.paths.items():
            label_maps[label - 1] = read_label_map(path, size_hw)
        return with_unique_ids(label_maps)

    def cells(self, label_maps: Array) -> list[Cell]:
        """The cells of the label maps, by class and id."""
        return cells_of(label_maps)

    def overlaps(self, label_maps: Array) -> int:
        """None: each pixel of a file has one id."""
        return 0


@dataclass(frozen=True)
class CodedCells:
    """Cells in run-length codes, which may overlap."""

    coded: tuple[Cell, ...]
    num_cell_classes: int

    def label_maps(self, size_hw: tuple[int, int]) -> Array:
        """(C, H, W) int32; the smaller cell wins a pixel, crowds are left out."""
        painted = self._painted()
        codes, labels = [cell.code for cell in painted], [cell.label for cell in painted]
        return paint(codes, labels, self.num_cell_classes, size_hw)

    def cells(self, label_maps: Array) -> list[Cell]:
        """The cells as they were annotated, crowds included."""
        return list(self.coded)

    def overlaps(self, label_maps: Array) -> int:
        """Cells that lost pixels to a smaller cell of their class."""
        painted = self._painted()
        visible = sum(np.bincount(plane.ravel(), minlength=len(painted) + 1) for plane in label_maps)
        whole = [int(coco_mask.area(cell.code)) for cell in painted]
        return int(np.sum(np.asarray(visible)[1:] < whole))

    def _painted(self) -> list[Cell]:
        """The cells that get pixels, the largest first."""
        return sorted((cell for cell in self.coded if not cell.crowd), key=lambda cell: -int(coco_mask.area(cell.code)))


def cells_of(label_maps: Array) -> list[Cell]:
    """The cells of label maps (C, H, W), by class and id."""
    return [Cell(code, label) for label, plane in enumerate(label_maps, start=1) for code in codes_of(plane)]


def read_label_map(path: Path, size_hw: tuple[int, int]) -> Array:
    """The label map (H, W) int32 of a tif of any type whose values are whole numbers from 0 to LARGEST_ID.

    Raises FileNotFoundError, and ValueError for another size, another value, or a broken file.
    """
    pixels = read_tif(path).pixels
    if pixels.shape != size_hw:
        raise _refusal(path, size_hw, f"shape {pixels.shape}")
    if pixels.dtype.kind not in "iuf":
        raise _refusal(path, size_hw, f"type {pixels.dtype}")
    with np.errstate(invalid="ignore"):  # what does not fit becomes another number, which is how it is found
        ids = pixels.astype(np.int32)
    bad = ids != pixels
    bad |= ids < 0
    if bad.any():
        y, x = np.argwhere(bad)[0]
        raise _refusal(path, size_hw, f"{pixels[y, x]} at row {y}, column {x}")
    return ids


def with_unique_ids(label_maps: Array) -> Array:
    """Label maps (C, H, W) with unique ids: the same, or where two classes share one, renumbered by class and id.

    >>> with_unique_ids(np.array([[[0, 7, 9]], [[7, 0, 0]]], np.int32)).tolist()
    [[[0, 1, 2]], [[3, 0, 0]]]
    """
    ids = [ids_of(plane) for plane in label_maps]
    if len(np.unique(np.concatenate(ids))) == sum(map(len, ids)):
        return label_maps
    renumbered, first = np.zeros_like(label_maps), 1
    for plane, known, target in zip(label_maps, ids, renumbered, strict=True):
        cells = plane > 0
        target[cells] = first + np.searchsorted(known, plane[cells])
        first += len(known)
    return renumbered


def _refusal(path: Path, size_hw: tuple[int, int], found: str) -> ValueError:
    return ValueError(
        f"{path}: expected ids, 0 or whole numbers up to {LARGEST_ID}, in shape {size_hw} of its image, "
        f"found {found}; export the label map again, one id a cell"
    )
