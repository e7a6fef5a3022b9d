"""A COCO json file -> its images, their cells in checked run-length codes, and the names of its classes.

Letters: C classes, H height, W width.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pycocotools import mask as coco_mask

from cellseg.annotations import Cell, CodedCells
from cellseg.codes import Code
from cellseg.data_folder import noted

FARTHEST = 1e6
"""pixels from the origin that a polygon may reach; pycocotools walks its edges one by one, also outside the image"""


class CocoImage(NamedTuple):
    """One image of a COCO file."""

    file_name: str
    path: Path
    image_id: int
    size_hw: tuple[int, int]
    annotation: CodedCells


def read_coco(path: Path, broken: list[str] | None = None) -> tuple[list[CocoImage], tuple[str, ...]]:
    """The images in order of id, and the class names: categories in order of id become 1..C.

    Image files lie beside the json or in images/ beside it. Raises FileNotFoundError, and ValueError that names the
    file and the entry at fault; where there is a list of what is broken, images without a file and cells that cannot
    be read are left out and the reasons written there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected COCO json, found {error}; export it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a COCO object with images, found {type(content).__name__}; export it again")
    images = _by_id(content, "images", path)
    categories = _by_id(content, "categories", path)
    labels = {category: label for label, category in enumerate(sorted(categories), start=1)}
    cells: dict[int, list[Cell]] = defaultdict(list)
    for number, entry in _by_id(content, "annotations", path).items():
        where = f"{path}: annotation {number}"
        with noted(broken):
            image_id = _known(entry, "image_id", images, where)
            label = labels[_known(entry, "category_id", categories, where)]
            size_hw = _size(images[image_id], f"{path}: image {image_id}")
            code = _code(_field(entry, "segmentation", (list, dict), where), size_hw, where)
            cells[image_id].append(Cell(code, label, bool(entry.get("iscrowd", 0))))
    found = []
    for image_id in sorted(images):
        with noted(broken):
            found.append(_image(images[image_id], image_id, tuple(cells[image_id]), len(labels), path))
    if len({image.file_name for image in found}) < len(found):
        raise ValueError(f"{path}: expected one entry an image file, found a file_name twice; remove one")
    names = tuple(str(_field(categories[k], "name", str, f"{path}: category {k}")) for k in sorted(categories))
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: expected a name a category, found one twice in {', '.join(names)}; rename it")
    return found, names


def _image(entry: Mapping[str, Any], image_id: int, cells: tuple[Cell, ...], classes: int, path: Path) -> CocoImage:
    """One image of the file, its own file found."""
    where = f"{path}: image {image_id}"
    file_name = str(_field(entry, "file_name", str, where))
    places = [path.parent / file_name, path.parent / "images" / file_name]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise FileNotFoundError(f"{where}: no file {places[0]} or {places[1]}; put the images beside the json")
    return CocoImage(file_name, place, image_id, _size(entry, where), CodedCells(cells, classes))


def _by_id(content: Mapping[str, Any], name: str, path: Path) -> dict[int, Mapping[str, Any]]:
    """The entries of one of the file's lists by their ids, which are unique."""
    entries: dict[int, Mapping[str, Any]] = {}
    for position, entry in enumerate(_field(content, name, list, f"{path}")):
        where = f"{path}: {name}[{position}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: expected an object, found {type(entry).__name__}; export it again")
        number = _field(entry, "id", int, where)
        if number in entries:
            raise ValueError(f"{where}: expected unique ids, found {number} twice; renumber the {name}")
        entries[number] = entry
    if not entries and name != "annotations":
        raise ValueError(f"{path}: expected {name}, found none; export it again")
    return entries


def _field(entry: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of the right type."""
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(each.__name__ for each in kinds)
        found = f"{value!r:.60}" if key in entry else "no such field"
        raise ValueError(f"{where}: expected {key} as {expected}, found {found}; export it again")
    return value


def _known(entry: Mapping[str, Any], key: str, known: Mapping[int, Any], where: str) -> int:
    """A field that is the id of another entry."""
    value: int = _field(entry, key, int, where)
    if value not in known:
        raise ValueError(f"{where}: expected {key} of an entry of the file, found {value}; remove it or add the entry")
    return value


def _size(entry: Mapping[str, Any], where: str) -> tuple[int, int]:
    height, width = _field(entry, "height", int, where), _field(entry, "width", int, where)
    if min(height, width) < 1:
        raise ValueError(
            f"{where}: expected a height and width of 1 or more, found {height} x {width}; export it again"
        )
    return height, width


def _code(segmentation: Any, size_hw: tuple[int, int], where: str) -> Code:
    """The run-length code of polygons, or of runs in either notation; it covers at least one pixel."""
    if isinstance(segmentation, list):
        code = _of_polygons(segmentation, size_hw, where)
    else:
        code = _of_runs(segmentation, size_hw, where)
    if not coco_mask.area(code):
        raise ValueError(f"{where}: expected a cell of at least one pixel, found none inside the image; remove it")
    return {"size": list(size_hw), "counts": code["counts"].decode()}


def _of_polygons(polygons: list[Any], size_hw: tuple[int, int], where: str) -> Code:
    for polygon in polygons or [[]]:
        numbers = polygon if isinstance(polygon, list) else []
        plain = all(isinstance(number, int | float) and abs(number) < FARTHEST for number in numbers)
        if len(numbers) < 6 or len(numbers) % 2 or not plain:
            raise ValueError(
                f"{where}: expected polygons of 6 or more numbers, x and y in turn, found {polygon!r:.60}; "
                "draw the cell again"
            )
    code: Code = coco_mask.merge(coco_mask.frPyObjects(polygons, *size_hw))
    return code


def _of_runs(segmentation: Mapping[str, Any], size_hw: tuple[int, int], where: str) -> Code:
    """Checked by hand: pycocotools decodes runs that are too few into whatever the memory held."""
    counts = _field(segmentation, "counts", (list, str), where)
    runs = _lengths(counts) if isinstance(counts, str) else counts
    whole = all(isinstance(run, int) and run >= 0 for run in runs) and sum(runs) == math.prod(size_hw)
    if segmentation.get("size") != list(size_hw) or not whole:
        raise ValueError(
            f"{where}: expected runs that fill its image, size {list(size_hw)}, "
            f"found {runs!r:.60} of size {segmentation.get('size')}; export it again"
        )
    code: Code = coco_mask.frPyObjects({"size": list(size_hw), "counts": runs}, *size_hw)
    return code


def _lengths(counts: str) -> list[int]:
    """Run lengths of COCO's compressed counts; [-1] where the text is not such counts.

    Six bits a character from "0" on: five of the number, lowest first, and one that says that more follow. From the
    fourth run on, the number is the difference to the run before last.

    >>> _lengths("52203")
    [5, 2, 2, 2, 5]
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16 > 0) << shift
            lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
            value = shift = 0
    return [-1] if shift else lengths
