"""A fixed, stratified share of a data set's pixels: crops of its images, appended to it as further images.

Letters: C classes, h height, w width of a crop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np

from cellseg.annotations import Annotation, Cell, cells_of
from cellseg.codes import Array
from cellseg.config import RunConfig
from cellseg.dataset import DataSet
from cellseg.label_maps import counts_of
from cellseg.splits import choose


@dataclass(frozen=True)
class Crop:
    """A window of an image."""

    index: int
    rows: slice
    columns: slice
    cell_counts: tuple[int, ...]
    """of each class"""


@dataclass(frozen=True)
class CropCells:
    """The cells of a crop, cut where it ends; of overlapping cells, what the label maps show."""

    whole: Annotation
    whole_size_hw: tuple[int, int]
    crop: Crop

    def label_maps(self, size_hw: tuple[int, int]) -> Array:
        """(C, h, w) int32, ids as in the whole image."""
        return self.whole.label_maps(self.whole_size_hw)[:, self.crop.rows, self.crop.columns].copy()

    def cells(self, label_maps: Array) -> list[Cell]:
        """The cells of the label maps, by class and id."""
        return cells_of(label_maps)

    def overlaps(self, label_maps: Array) -> int:
        """None: each pixel of a label map has one id."""
        return 0


def crops_of(data: DataSet, indices: Sequence[int], config: RunConfig, share: float) -> list[Crop]:
    """About that share of all crops of the images, chosen so that each class keeps the same share of its cells.

    A crop has room for every view that training cuts; where views are whole images, so are the crops. The choice
    follows from dataset.split_seed. The config must have no field left to the Plan.
    """
    found: list[Crop] = []
    for index in indices:
        label_maps = data.label_maps(index)
        for rows, columns in _grid(data.records[index].size_hw, config):
            counts = counts_of(label_maps[:, rows, columns])
            found.append(Crop(index, rows, columns, tuple(counts.tolist())))
    if len(found) < 2:
        return found
    cell_counts = np.array([crop.cell_counts for crop in found])
    kept = choose(np.arange(len(found)), cell_counts, share, config.dataset.split_seed)
    return [crop for crop, chosen in zip(found, kept, strict=True) if chosen]


def with_crops(data: DataSet, crops: Sequence[Crop]) -> DataSet:
    """The data set with the crops after its own images; digest, names and colours stay as they are.

    Crops of images that are kept in memory are views of them; the others are read again, as their images are.
    """
    records, annotations = list(data.records), list(data.annotations)
    kept = dict(data.kept)
    next_id = max((record.image_id for record in records), default=0) + 1
    for number, crop in enumerate(crops):
        whole = data.records[crop.index]
        if crop.index in kept:
            image, label_maps = kept[crop.index]
            kept[len(records)] = image[crop.rows, crop.columns], label_maps[:, crop.rows, crop.columns]
        size_hw = (crop.rows.stop - crop.rows.start, crop.columns.stop - crop.columns.start)
        name = f"{whole.name} y{crop.rows.start} x{crop.columns.start}"
        window = (crop.rows, crop.columns)
        records.append(replace(whole, name=name, size_hw=size_hw, image_id=next_id + number, window=window))
        annotations.append(CropCells(data.annotations[crop.index], whole.size_hw, crop))
    return replace(
        data,
        records=tuple(records),
        annotations=tuple(annotations),
        cell_counts=np.array([*data.cell_counts.tolist(), *(crop.cell_counts for crop in crops)], np.int64),
        kept=kept,
    )


def _grid(size_hw: tuple[int, int], config: RunConfig) -> list[tuple[slice, slice]]:
    """The rows and columns of the crops that an image is cut into: all of it, without overlap."""
    side = max(size_hw)
    if config.augment.crop:
        side = math.ceil(config.augment.crop / config.predict.scale_of(size_hw) * config.augment.zoom_jitter)
    edges = [np.linspace(0, length, max(1, length // side) + 1).round().astype(int).tolist() for length in size_hw]
    rows, columns = ([slice(*pair) for pair in pairwise(ends)] for ends in edges)
    return list(product(rows, columns))
