"""Images with annotations of QuPath or ImageJ, or label tifs -> COCO json, which keeps the names of the classes."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cellseg import geojson, rois
from cellseg.drawn import DrawnCell
from cellseg.formats import path_of
from cellseg.images import image_size
from cellseg.json_files import write_json
from cellseg.truth import CodedImage, truth_of
from cellseg.whole_files import whole_folder

ANNOTATIONS = (".geojson.json", ".geojson", ".rois.zip", ".zip", ".roi", ".labels.tif")
"""endings of what is read; the first that fits a file tells how"""
IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
PICTURES = ".overlay.png"
"""ending of what looks like an image but was drawn from one"""
EXPECTED = "such as a.geojson or a.rois.zip beside a.tif"
JSON = "annotations.json"


class Pair(NamedTuple):
    """An image and its annotation."""

    image: Path
    annotation: Path


def convert(source: Path, out: Path, classes: Sequence[str] = (), unclassified: str | None = None) -> dict[str, int]:
    """Write annotations.json and images/ from a folder of pairs, and return the number of cells of each class.

    classes names all classes in order, else they are those that are found, by name; `unclassified` is the class of
    objects without one. Images are copied as they are. Raises FileNotFoundError, and ValueError that names the file and
    the object at fault; then nothing is written.
    """
    present = [out] if out.is_file() else [path for path in (out / JSON, out / "images") if path.exists()]
    if present:
        raise ValueError(f"{out}: expected a new folder, found {', '.join(map(str, present))}; name another")
    pairs = pairs_of(source)
    sizes = [image_size(pair.image) for pair in pairs]
    found = [_read(pair, size, classes, unclassified) for pair, size in zip(pairs, sizes, strict=True)]
    names = _class_names(source, pairs, found, classes)
    images = [
        CodedImage(n, pair.image.name, size, [cell.code for cell in cells], [names[cell.class_name] for cell in cells])
        for n, (pair, size, cells) in enumerate(zip(pairs, sizes, found, strict=True), start=1)
    ]
    with whole_folder(out) as unfinished:
        copies = unfinished / "images"
        copies.mkdir()
        for pair in pairs:
            shutil.copyfile(pair.image, copies / pair.image.name)
        write_json(truth_of(images, list(names)), unfinished / JSON)
    counts = Counter(cell.class_name for cells in found for cell in cells)
    return {name: counts[name] for name in names}


def pairs_of(source: Path) -> list[Pair]:
    """The images of a folder, by name, each with the one annotation beside it."""
    if not source.is_dir():
        raise FileNotFoundError(
            f"{source}: expected a folder of images with their annotations, found none; name another"
        )
    images: dict[str, list[Path]] = defaultdict(list)
    annotations: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")):
        ending = next((each for each in ANNOTATIONS if path.name.lower().endswith(each)), None)
        if ending:
            annotations[path.name[: -len(ending)]].append(path)
        elif path.suffix.lower() in IMAGES and not path.name.endswith(PICTURES):
            images[path.stem].append(path)
    if not annotations:
        raise FileNotFoundError(f"{source}: expected annotations, {EXPECTED}, found none; export them there")
    for name in sorted({*images, *annotations}):
        _check_pair(source / name, images[name], annotations[name])
    return [Pair(images[name][0], annotations[name][0]) for name in sorted(images)]


def _check_pair(place: Path, images: Sequence[Path], annotations: Sequence[Path]) -> None:
    """Raise where there is not one of each."""
    if not images:
        raise FileNotFoundError(
            f"{annotations[0]}: expected its image {place.name}.tif, .png or .jpg beside it, found none; put it there"
        )
    if not annotations:
        raise FileNotFoundError(
            f"{images[0]}: expected an annotation, {EXPECTED}, found none; export it there, or take the image away"
        )
    for files, kind in ((images, "image"), (annotations, "annotation")):
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            raise ValueError(f"{place.parent}: expected one {kind} called {place.name}, found {names}; keep one")


def _read(pair: Pair, size_hw: tuple[int, int], classes: Sequence[str], unclassified: str | None) -> list[DrawnCell]:
    """The cells of an annotation, whatever its format."""
    path = pair.annotation
    if path.suffix.lower() == ".tif":
        from cellseg import label_tif  # loads torch

        table = path_of(path.parent, pair.image.stem, "csv")
        return label_tif.read(path, size_hw, table if table.exists() else None, unclassified)
    if path.suffix.lower() in (".zip", ".roi"):
        return rois.read(path, size_hw, classes, unclassified)
    return geojson.read(path, size_hw, unclassified)


def _class_names(
    source: Path, pairs: Sequence[Pair], found: Sequence[Sequence[DrawnCell]], classes: Sequence[str]
) -> dict[str, int]:
    """The labels 1..C of the classes, in order."""
    for pair, cells in zip(pairs, found, strict=True):
        for cell in cells:
            if classes and cell.class_name not in classes:
                raise ValueError(
                    f"{pair.annotation}: expected the classes {', '.join(classes)}, found {cell.class_name}; "
                    "rename it, or add it to --classes"
                )
    names = classes or sorted({cell.class_name for cells in found for cell in cells})
    if not names:
        raise ValueError(f"{source}: expected cells, found none; annotate some, or name the classes by --classes")
    if len(set(names)) < len(names):
        raise ValueError(f"--classes: expected each class once, found {', '.join(names)}; leave one out")
    return {name: label for label, name in enumerate(names, start=1)}
