"""Results, truth and image ids as JSON files."""

import errno
import json
import textwrap
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from cellseg.whole_files import require_place, write_whole

MEMBER = "test-results.json"
"""name of the results in a submission zip"""
MOST_BYTES = 2**31
"""of results in a zip, which can claim more than any memory holds"""
DAMAGED = (ValueError, RuntimeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""what reading JSON or a zip may raise; RuntimeError: encrypted, nested deep; OSError: members outside of the file"""
IMAGE_KEYS = ("file_name", "id", "height", "width")
RESULT_KEYS = ("image_id", "category_id", "segmentation", "score")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "segmentation")


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results of a JSON file or a submission zip, not yet linted."""
    results = _parsed(path)
    if not isinstance(results, list):
        raise ValueError(f"{path}: expected a list of results, got {shown(results)}")
    return results


def read_scorable(path: Path) -> list[dict[str, Any]]:
    """As read_results, each result with what scoring needs."""
    results = read_results(path)
    _check_fields(path, results, RESULT_KEYS, "result ")
    _check_codes(path, results, "result ")
    return results


def read_truth(path: Path) -> dict[str, Any]:
    """The COCO truth dict of a JSON file."""
    truth = _parsed(path)
    for key, fields in (("images", IMAGE_KEYS), ("categories", ("id", "name")), ("annotations", ANNOTATION_KEYS)):
        if not isinstance(truth, dict) or not isinstance(truth.get(key), list):
            raise ValueError(f"{path}: expected a COCO truth, a dict with a list of {key}, got {shown(truth)}")
        _check_fields(path, truth[key], fields, f"{key} ")
    _check_codes(path, truth["annotations"], "annotation ")
    return dict(truth)


def read_image_ids(path: Path) -> list[dict[str, Any]]:
    """The images of an id file, [{"file_name", "id", "height", "width"}, …], with names and ids that occur once."""
    images = _parsed(path)
    if not isinstance(images, list):
        raise ValueError(f"{path}: expected a list of images with {', '.join(IMAGE_KEYS)}, got {shown(images)}")
    _check_fields(path, images, IMAGE_KEYS, "image ")
    for number, image in enumerate(images):
        name = image["file_name"]
        if not isinstance(name, str) or not name or "/" in name or "\\" in name or ".." in name:
            raise ValueError(f"{path}: image {number}: expected a file name without folders, got {shown(name)}")
        for key, least in (("id", 0), ("height", 1), ("width", 1)):
            if type(image[key]) is not int or image[key] < least:
                raise ValueError(f"{path}: image {number}: {key} {shown(image[key])} is not an integer from {least} on")
    for key in ("id", "file_name"):
        value, times = Counter(image[key] for image in images).most_common(1)[0] if images else (None, 1)
        if times > 1:
            raise ValueError(f"{path}: {key} {shown(value)} is given {times} times; expected once")
    return images


def _check_fields(path: Path, records: list[Any], keys: Sequence[str], kind: str) -> None:
    for number, record in enumerate(records):
        if not isinstance(record, dict) or not record.keys() >= set(keys):
            raise ValueError(f"{path}: {kind}{number}: expected a dict with {', '.join(keys)}, got {shown(record)}")


def _check_codes(path: Path, records: list[Any], kind: str) -> None:
    for number, record in enumerate(records):
        code = record["segmentation"]
        if not isinstance(code, dict) or not isinstance(code.get("counts"), str) or "size" not in code:
            raise ValueError(
                f"{path}: {kind}{number}: expected a run-length code with size and counts, got {shown(code)}"
            )


def _parsed(path: Path) -> Any:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; is the name right?")
    try:
        if not zipfile.is_zipfile(path):
            return json.loads(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                raise ValueError(f"the zip has no {MEMBER}, only {shown(archive.namelist())}")
            if (size := archive.getinfo(MEMBER).file_size) > MOST_BYTES:
                limit = f"at most {MOST_BYTES / 2**30:g} GiB"
                raise ValueError(
                    f"{MEMBER} unpacks to {size / 2**30:,.1f} GiB, {limit} are read; unzip it to have it read"
                )
            return json.loads(archive.read(MEMBER))
    except DAMAGED as error:
        if isinstance(error, OSError) and error.filename:  # the file cannot be opened, whatever it holds
            raise
        raise ValueError(f"{path}: expected JSON, or a zip with {MEMBER}: {error}") from error


def write_json(value: Any, path: Path) -> None:
    """Write whole or not at all. Raises FileNotFoundError for a missing folder, IsADirectoryError for a folder."""
    require_place(path)
    write_whole(json.dumps(value, separators=(",", ":")), path)


def shown(value: Any) -> str:
    """A value in few characters, for an error message."""
    try:
        return textwrap.shorten(short(value), 120, placeholder=" …")
    except ValueError:  # Python refuses to print integers of thousands of digits
        return f"of type {type(value).__name__}"
