"""Results -> a submission zip, linted before it is written."""

import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.codes import run_lengths
from cellseg.json_files import MEMBER, shown
from cellseg.whole_files import require_place, sweep, whole, zip_member

RESULT_KEYS = ("image_id", "category_id", "bbox", "score", "segmentation")
SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Summary:
    """What a submission holds."""

    total: int
    """results"""
    per_class: dict[int, int]
    """category id -> results, for every class"""
    images_without_cells: tuple[str, ...]
    """file names"""
    bytes: int
    """size of the zip"""


def lint(
    results: Any,
    images: Sequence[Mapping[str, Any]],
    num_cell_classes: int = 4,
    max_bytes: int = 100_000_000,
) -> list[str]:
    """Problems that a grader would trip over, one line each, at most SHOWN_PROBLEMS and a count of the rest.

    Takes anything that JSON can hold as results, and the images of read_image_ids. max_bytes limits the JSON.
    """
    if not isinstance(results, list):
        return [f"expected a list of results, got {shown(results)}"]
    sizes = {image["id"]: [image["height"], image["width"]] for image in images}
    lines: list[str] = []
    first_of: dict[Any, int] = {}
    for number, result in enumerate(results):
        problems = list(_problems(result, sizes, num_cell_classes))
        if not problems:
            first = first_of.setdefault(_identity(result), number)
            problems = [f"exact duplicate of result {first}"] if first != number else []
        lines += [f"result {number}: {problem}" for problem in problems]
    if not lines and (size := len(_text(results))) > max_bytes:
        lines.append(f"{MEMBER} would have {size:,} bytes, more than {max_bytes:,}; raise the score threshold")
    rest = len(lines) - SHOWN_PROBLEMS
    return [*lines[:SHOWN_PROBLEMS], f"… and {rest} more problems"] if rest > 0 else lines


def _problems(result: Any, sizes: Mapping[int, list[int]], num_cell_classes: int) -> Iterator[str]:
    if not isinstance(result, dict):
        yield f"expected a dict, got {shown(result)}"
        return
    if missing := [key for key in RESULT_KEYS if key not in result]:
        yield f"no {', '.join(missing)}"
        return
    label, score = result["category_id"], result["score"]
    if type(label) is not int or not 1 <= label <= num_cell_classes:
        yield f"category_id {shown(label)} is not an integer from 1 to {num_cell_classes}"
    if not _is_number(score) or not 0 <= score <= 1:
        yield f"score {shown(score)} is not a number from 0 to 1"
    if type(result["image_id"]) is not int or result["image_id"] not in sizes:
        yield f"image_id {shown(result['image_id'])} is not in the id file"
        return
    height, width = sizes[result["image_id"]]
    if problem := _box_problem(result["bbox"], height, width) or _mask_problem(result["segmentation"], height, width):
        yield problem


def _box_problem(bbox: Any, height: int, width: int) -> str:
    """What is wrong with a bbox x, y, w, h; a pixel of rounding outside the image is forgiven."""
    if not isinstance(bbox, list | tuple) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        return f"bbox {shown(bbox)} is not four numbers x, y, width, height"
    if not all(abs(value) < 1e9 for value in bbox):  # false for nan; comparing never overflows, adding huge ints may
        return f"bbox {shown(bbox)} is not finite"
    x, y, w, h = bbox
    if w < 0 or h < 0:
        return f"bbox {shown(bbox)} has a negative size"
    inside = x >= -1 and y >= -1 and x + w <= width + 1 and y + h <= height + 1
    return "" if inside else f"bbox {shown(bbox)} leaves its image of {height} x {width} (height x width)"


def _mask_problem(code: Any, height: int, width: int) -> str:
    if not isinstance(code, dict) or "size" not in code or "counts" not in code:
        return f"segmentation {shown(code)} is not a dict of size and counts"
    size, counts = code["size"], code["counts"]
    if not isinstance(size, list | tuple) or [*map(type, size)] != [int, int] or [*size] != [height, width]:
        return f"segmentation size {shown(size)} is not {[height, width]} (height, width) of its image"
    if not isinstance(counts, str):
        return f"segmentation counts {shown(counts)} are not a str; decode bytes as ASCII"
    try:
        runs = run_lengths(counts)
    except ValueError as error:
        return f"segmentation {error}: {shown(counts)}"
    if sum(runs) != height * width:
        return f"segmentation counts cover {sum(runs)} pixels, its image has {height * width}"
    return "" if sum(runs[1::2]) else "empty mask"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _identity(result: Mapping[str, Any]) -> tuple[Any, ...]:
    plain = (result["image_id"], result["category_id"], result["score"])
    return (*plain, *result["bbox"], result["segmentation"]["counts"])


def write_submission(
    results: list[dict[str, Any]],
    images: Sequence[Mapping[str, Any]],
    path: Path,
    num_cell_classes: int = 4,
    max_bytes: int = 100_000_000,
) -> Summary:
    """Summary of the zip that is written to path: the results in order of image and score, in MEMBER.

    The same results give the same bytes, path never holds half a file, and what a killed call left beside it is swept
    away. Raises ValueError with the first problems that lint finds, FileNotFoundError for a missing folder, OSError
    where the file cannot be written.
    """
    if problems := lint(results, images, num_cell_classes, max_bytes):
        raise ValueError(f"{path}: not written: " + "; ".join(problems[:3]))
    require_place(path)
    sweep(path.parent)
    try:
        with whole(path) as partial, zipfile.ZipFile(partial, "w") as archive:
            archive.writestr(zip_member(MEMBER), _text(results))
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    counts = Counter(result["category_id"] for result in results)
    used = {result["image_id"] for result in results}
    return Summary(
        total=len(results),
        per_class={label: counts[label] for label in range(1, num_cell_classes + 1)},
        images_without_cells=tuple(image["file_name"] for image in images if image["id"] not in used),
        bytes=path.stat().st_size,
    )


def _text(results: Sequence[Mapping[str, Any]]) -> str:
    """The JSON that is handed in. Sorted by unrounded score, so that graders break rounded ties the same way."""
    ordered = sorted(results, key=lambda result: (result["image_id"], -result["score"]))
    written = [
        {
            "image_id": result["image_id"],
            "category_id": result["category_id"],
            "bbox": [round(value, 2) for value in result["bbox"]],
            "score": round(result["score"], 6),
            "segmentation": {key: result["segmentation"][key] for key in ("size", "counts")},
        }
        for result in ordered
    ]
    return json.dumps(written, separators=(",", ":"))
