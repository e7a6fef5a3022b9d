"""The competition's folder layout: which files belong to which training image, and the list of the test images.

train/<name>/image.tif, class1.tif …        a class without a cell has no file
test_release/<file>.tif
test_image_name_to_ids.json                 [{"file_name", "id", "height", "width"}, …]
manifest.csv                                optional: id (a training name), split, source
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.annotations import ClassFiles
from cellseg.data_folder import noted
from cellseg.images import image_size
from cellseg.json_files import read_image_ids

TEST_LIST = "test_image_name_to_ids.json"
LITTER = ("Thumbs.db", "desktop.ini", "__MACOSX")
"""what operating systems leave in folders; hidden files are passed over too"""


@dataclass(frozen=True)
class Record:
    """One annotated image."""

    name: str
    image_path: Path
    size_hw: tuple[int, int]
    image_id: int
    source: str
    """what the image was cut from, "" where unknown"""
    window: tuple[slice, slice] | None = None
    """the rows and columns of the file that the image is; all of it where None"""


@dataclass(frozen=True)
class TestImage:
    """One image to be predicted for the competition."""

    __test__ = False  # no test case, whatever pytest reads into the name

    path: Path
    file_name: str
    image_id: int
    size_hw: tuple[int, int]


def training_images(
    root: Path, num_cell_classes: int, broken: list[str] | None = None
) -> list[tuple[Record, ClassFiles]]:
    """The training images of a folder with train/, sorted by name, with ids from 1.

    Raises ValueError for a file that has no place there, FileNotFoundError for an image.tif that is missing; where
    there is a list of what is broken, the image is left out and the reason written there.
    """
    folders = _entries(root / "train")
    if not folders:
        raise FileNotFoundError(f"{root / 'train'}: expected a folder an image, found none; put the images there")
    sources = _sources(root / "manifest.csv")
    found = []
    for image_id, folder in enumerate(folders, start=1):
        with noted(broken):
            if not folder.is_dir():
                raise ValueError(f"{folder}: expected only folders, one an image, found a file; move it elsewhere")
            annotation = ClassFiles(_class_files(folder, num_cell_classes), num_cell_classes)
            path = folder / "image.tif"
            record = Record(folder.name, path, image_size(path), image_id, sources.get(folder.name, ""))
            found.append((record, annotation))
    return found


def test_images(root: Path, broken: list[str] | None = None) -> list[TestImage]:  # noqa: PT028 no test, for all its name
    """The test images in order of id, each there and of the listed size.

    Raises FileNotFoundError, and ValueError for a broken list, another size, or a file that is not listed; where there
    is a list of what is broken, images are left out and the reasons written there.
    """
    path, folder = root / TEST_LIST, root / "test_release"
    for needed in (path, folder):
        if not needed.exists():
            raise FileNotFoundError(f"{needed}: no such file or folder; test images need {TEST_LIST} and test_release/")
    images, entries = [], read_image_ids(path)
    for entry in entries:
        with noted(broken):
            images.append(_test_image(entry, folder))
    names = {entry["file_name"] for entry in entries}
    for file in _entries(folder):
        with noted(broken):
            if file.name not in names:
                raise ValueError(
                    f"{folder}: expected the files of {TEST_LIST}, found also {file.name}; remove it or list it"
                )
    return sorted(images, key=lambda image: image.image_id)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name, without hidden files and litter."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name not in LITTER)


def _class_files(folder: Path, num_cell_classes: int) -> dict[int, Path]:
    """The label tifs of a training folder by class."""
    files = {}
    for entry in _entries(folder):
        number = re.fullmatch(r"class([1-9][0-9]*)\.tif", entry.name)
        if number and int(number[1]) <= num_cell_classes:
            files[int(number[1])] = entry
        elif number:
            raise ValueError(
                f"{entry}: expected classes 1 to {num_cell_classes}, found {number[1]}; allow for more with "
                f"--model.num-cell-classes, or name all with --classes"
            )
        elif entry.name != "image.tif":
            raise ValueError(f"{entry}: expected image.tif and class<number>.tif alone, found this; move it elsewhere")
    return dict(sorted(files.items()))


def _sources(path: Path) -> dict[str, str]:
    """What each training image was cut from, by name: its source up to the last slash, or all of it."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"id", "source"} <= rows[0].keys():
        raise ValueError(
            f"{path}: expected columns id and source, found {', '.join(map(str, rows[0]))}; add or remove it"
        )
    training = [row for row in rows if row.get("split", "train") == "train"]
    return {row["id"]: (row["source"] or "").rpartition("/")[0] or row["source"] or "" for row in training}


def _test_image(entry: Mapping[str, Any], folder: Path) -> TestImage:
    """One entry of the list, checked against its file."""
    path = folder / entry["file_name"]
    size_hw = image_size(path)
    if size_hw != (entry["height"], entry["width"]):
        expected = f"height {entry['height']} and width {entry['width']} as listed"
        raise ValueError(f"{path}: expected {expected}, found {size_hw[0]} and {size_hw[1]}; copy it again")
    return TestImage(path, entry["file_name"], entry["id"], size_hw)
