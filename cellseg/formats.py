"""The files in which the cells of an image can be written; imports what writes them only when it does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellseg.cells import Cells
    from cellseg.slides import Image

ENDINGS = {
    "labels": "tif",
    "coco": "json",
    "geojson": "json",
    "rois": "zip",
    "csv": "csv",
    "overlay": "png",
}
FORMATS = tuple(ENDINGS)


def path_of(folder: Path, name: str, format: str) -> Path:
    """The file of an image of that name in one of FORMATS.

    >>> path_of(Path("out"), "slide 7", "geojson").as_posix()
    'out/slide 7.geojson.json'
    """
    if format not in ENDINGS:
        raise ValueError(f"format: expected {', '.join(FORMATS)}, got {format!r}")
    return folder / f"{name}.{format}.{ENDINGS[format]}"


def write(
    cells: "Cells",
    image: "Image",
    folder: Path,
    name: str,
    formats: Sequence[str],
    image_id: int = 1,
    file_name: str | None = None,
) -> list[Path]:
    """Write the cells of an image (H, W, 3) uint8 in formats, each file whole or not at all, and return the files.

    image_id and file_name are the image's in COCO json; without a file_name, it is the name. A folder that is not there
    is made.
    """
    from cellseg import geojson, label_tif, measurements, overlay, rois
    from cellseg.json_files import write_json
    from cellseg.truth import CodedImage, truth_of

    coded = CodedImage(
        image_id, file_name or name, cells.size_hw, cells.codes, cells.labels.tolist(), cells.scores.tolist()
    )
    writers: dict[str, Callable[[Path], None]] = {
        "labels": lambda path: label_tif.write(cells, path),
        "coco": lambda path: write_json(truth_of([coded], cells.class_names), path),
        "geojson": lambda path: geojson.write(cells, path),
        "rois": lambda path: rois.write(cells, path),
        "csv": lambda path: measurements.write(cells, image, path),
        "overlay": lambda path: overlay.write(cells, image, path),
    }
    paths = [path_of(folder, name, format) for format in formats]
    folder.mkdir(parents=True, exist_ok=True)
    for format, path in zip(formats, paths, strict=True):
        writers[format](path)
    return paths
