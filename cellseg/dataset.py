"""A folder of annotated images -> a DataSet: images, label maps and the truth that results are scored against.

Letters: N images, C classes, H height, W width.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cellseg import stain
from cellseg.annotations import Annotation
from cellseg.coco import read_coco
from cellseg.codes import Array
from cellseg.config import DatasetConfig
from cellseg.data_folder import missing, noted, require_data
from cellseg.images import read_image, recolored
from cellseg.label_maps import counts_of
from cellseg.layout import Record, TestImage, test_images, training_images
from cellseg.scale import Scale, common_scale, read_scale

__all__ = ["DataSet", "Record", "TestImage", "open_dataset", "test_images"]

MEMORY = 4 * 2**30
"""bytes of images and label maps that are kept; the rest is read again from its files"""
Found = tuple[Record, Annotation, tuple[Path, ...]]
"""an image, its cells, and the files of both"""
Look = Callable[[Record, Annotation, Array, Array], None]
"""takes an image, its cells, its pixels as its file has them, (H, W, 3) uint8, and its label maps"""


@dataclass(eq=False)
class DataSet:
    """Annotated images, checked when opened. What its methods return may be written to."""

    root: Path
    records: tuple[Record, ...]
    class_names: tuple[str, ...]
    channel_order: str
    """rgb or bgr: of the files, never of what image() returns"""
    channel_order_reason: str
    """a sentence that says how the order was found"""
    color: str
    """rgb or gray"""
    digest: str
    """of the names and bytes of the training files, wherever they lie"""
    scale: Scale
    """what is known of the size of a pixel"""
    cell_counts: Array
    """(N, C) int64: cells of each class in the label maps"""
    overlaps: int
    """cells that lost pixels to a smaller cell of their class"""
    annotations: tuple[Annotation, ...] = field(repr=False)
    kept: dict[int, tuple[Array, Array]] = field(repr=False)
    """images as image() returns them and label maps, by index, as many as MEMORY allows"""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def num_cell_classes(self) -> int:
        """C, without background."""
        return len(self.class_names)

    @property
    def mpp(self) -> float | None:
        """Microns per pixel, None where they are not known."""
        return self.scale.mpp

    def image(self, index: int) -> Array:
        """An image (H, W, 3) uint8, true RGB, or luminance three times where the color is gray."""
        if index in self.kept:
            return self.kept[index][0].copy()
        record = self.records[index]
        image = read_image(record.image_path, self.channel_order, self.color)
        return image if record.window is None else image[record.window].copy()

    def label_maps(self, index: int) -> Array:
        """Label maps (C, H, W) int32 of an image, ids unique within it."""
        if index in self.kept:
            return self.kept[index][1].copy()
        return self.annotations[index].label_maps(self.records[index].size_hw)

    def identified(self, indices: Iterable[int]) -> Iterator[tuple[int, Array]]:
        """Id and image of each index, as `predict` takes them; read one after the other."""
        return ((self.records[index].image_id, self.image(index)) for index in indices)

    def part(self, index: int, rows: slice, columns: slice) -> tuple[Array, Array]:
        """A window of an image and of its label maps; quick where the image is kept, else all of it is read."""
        if index in self.kept:
            image, label_maps = self.kept[index]
            return image[rows, columns].copy(), label_maps[:, rows, columns].copy()
        return self.image(index)[rows, columns], self.label_maps(index)[:, rows, columns]

    def truth(self, indices: Iterable[int] | None = None) -> dict[str, Any]:
        """The COCO dict of some images, or of all; annotation ids count from 1, since pycocotools' 0 is "unmatched"."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(len(self)) if indices is None else indices:
            record = self.records[index]
            file_name = _relative(record.image_path, self.root)
            height, width = record.size_hw
            images.append({"id": record.image_id, "file_name": file_name, "height": height, "width": width})
            for cell in self.annotations[index].cells(self.label_maps(index)):
                annotations.append(cell.to_coco(record.image_id, len(annotations) + 1))
        categories = [{"id": label, "name": name} for label, name in enumerate(self.class_names, start=1)]
        return {"images": images, "categories": categories, "annotations": annotations}


def open_dataset(
    root: Path,
    config: DatasetConfig,
    num_cell_classes: int = 4,
    broken: list[str] | None = None,
    look: Look | None = None,
) -> DataSet:
    """The annotated images of a folder with train/, of a COCO json file, or of a folder that holds one.

    All files are read and checked now, each shown to `look`; then no image is kept in memory. A COCO file brings its
    own classes; num_cell_classes is for train/ alone, where the config does not name them. Raises FileNotFoundError and
    ValueError that say what is wrong with which file; where there is a list of what is broken, images are left out and
    the reasons written there.
    """
    require_data(root)
    folder = root if root.is_dir() else root.parent
    found, class_names = _found(root, config.class_names, num_cell_classes, broken)
    opened: list[Found] = []
    kept: dict[int, tuple[Array, Array]] = {}
    room, counts, overlaps, differences = 0 if look else MEMORY, [], 0, []
    for (record, annotation, files), image, label_maps in _readable(found, broken):
        if look:
            look(record, annotation, image, label_maps)
        counts.append(counts_of(label_maps))
        overlaps += annotation.overlaps(label_maps)
        differences.append(stain.red_over_blue(image, label_maps.max(axis=0) > 0))
        room -= image.nbytes + label_maps.nbytes
        if room >= 0:
            kept[len(opened)] = image, label_maps
        opened.append((record, annotation, files))
    order, reason = stain.channel_order(differences)
    if config.channel_order != "auto":
        order, reason = config.channel_order, f"{config.channel_order}: set by the configuration"
    if config.mpp is None:
        scale = common_scale({record.name: read_scale(record.image_path) for record, _, _ in opened})
    else:
        scale = Scale(config.mpp, f"{config.mpp:.4g} µm a pixel by the configuration")
    return DataSet(
        root=folder,
        records=tuple(record for record, _, _ in opened),
        class_names=class_names,
        channel_order=order,
        channel_order_reason=reason,
        color=config.color,
        digest=_digest({path for _, _, files in opened for path in files}, folder),
        scale=scale,
        cell_counts=np.asarray(counts, np.int64).reshape(-1, len(class_names)),
        overlaps=overlaps,
        annotations=tuple(annotation for _, annotation, _ in opened),
        kept={index: (recolored(image, order, config.color), maps) for index, (image, maps) in kept.items()},
    )


def _found(
    root: Path, names: tuple[str, ...] | None, num_cell_classes: int, broken: list[str] | None
) -> tuple[list[Found], tuple[str, ...]]:
    """The images and the class names of the layout that root has."""
    if (root / "train").is_dir():
        names = names or tuple(f"class{label}" for label in range(1, num_cell_classes + 1))
        images = training_images(root, len(names), broken)
        return [(record, cells, (record.image_path, *cells.paths.values())) for record, cells in images], names
    jsons = [root]
    if root.is_dir():
        jsons = sorted({*root.glob("annotations.json"), *root.glob("*.coco.json")})
        if len(jsons) > 1:
            raise ValueError(
                f"{root}: expected one COCO file, found {', '.join(p.name for p in jsons)}; name one of them"
            )
        if not jsons:
            raise FileNotFoundError(missing(root, "no train folder and no COCO file"))
    coco, own_names = read_coco(jsons[0], broken)
    if names and len(names) != len(own_names):
        raise ValueError(
            f"{jsons[0]}: expected a name for each of its {len(own_names)} classes ({', '.join(own_names)}), got "
            f"{len(names)} ({', '.join(names)}); name as many with --classes"
        )
    found: list[Found] = []
    for image in coco:
        record = Record(image.file_name, image.path, image.size_hw, image.image_id, "")
        found.append((record, image.annotation, (jsons[0], image.path)))
    return found, names or own_names


def _readable(found: Iterable[Found], broken: list[str] | None) -> Iterator[tuple[Found, Array, Array]]:
    """The images that can be read, with their pixels and label maps."""
    for record, annotation, files in found:
        with noted(broken):
            yield (record, annotation, files), *_read(record, annotation)


def _read(record: Record, annotation: Annotation) -> tuple[Array, Array]:
    """The image as its file has it, and its label maps."""
    image = read_image(record.image_path)
    if image.shape[:2] != record.size_hw:
        expected = f"height {record.size_hw[0]} and width {record.size_hw[1]} as annotated"
        raise ValueError(
            f"{record.image_path}: expected {expected}, found {image.shape[:2]}; is it the annotated file?"
        )
    return image, annotation.label_maps(record.size_hw)


def _digest(files: Iterable[Path], folder: Path) -> str:
    """16 hex digits of the names within the folder and the bytes of files."""
    total = hashlib.blake2b(digest_size=8)
    for name, path in sorted((_relative(path, folder), path) for path in files):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b")
        total.update(f"{name}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def _relative(path: Path, folder: Path) -> str:
    """A path from the folder on, with slashes, on any system."""
    return Path(os.path.relpath(path, folder)).as_posix()
