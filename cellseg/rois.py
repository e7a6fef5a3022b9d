"""ImageJ's ROIs, in a zip as its ROI manager keeps them, or one in a file.

A cell is called `0001-epithelial`; of a ROI that somebody drew, `epithelial-17` and `epithelial` name the class too.
Letters: K corners of a line, H x W size of the image.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from cellseg.cells import Cells
from cellseg.codes import Array
from cellseg.colors import color_of
from cellseg.drawn import DrawnCell, Outline, drawn
from cellseg.outlines import Ring, outlines_of
from cellseg.whole_files import whole, zip_member

MOVE, LINE, QUADRATIC, CUBIC, CLOSE = range(5)
POINTS = {MOVE: 1, LINE: 1, QUADRATIC: 2, CUBIC: 3, CLOSE: 0}
"""of a step of a path, by the number that stands for it"""
CURVE_STEPS = 32
"""straight lines for a curve of a path"""
OVAL_STEPS = 720
"""straight lines for an oval"""
AREAS = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)


def write(cells: Cells, path: Path) -> None:
    """Write a zip of traced ROIs, the exact outlines of the pixels; composite ones of cells with parts or holes.

    Each has the colour of its class; a group would bring one of ImageJ's own. The same cells give the same bytes.
    """
    digits = max(4, len(str(len(cells))))
    with whole(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        rows = zip(cells.windows(), cells.names, cells.labels.tolist(), strict=True)
        for number, ((corner, window), class_name, label) in enumerate(rows, start=1):
            rings = [ring for part in outlines_of(window, corner) for ring in part]
            roi = _traced(rings[0]) if len(rings) == 1 else _composite(rings)
            roi.name = f"{number:0{digits}}-{class_name}"
            roi.stroke_color = bytes((255, *color_of(label)))
            archive.writestr(zip_member(re.sub(r"[/\\]", "_", roi.name) + ".roi"), roi.tobytes())


def read(
    path: Path, size_hw: tuple[int, int], classes: Sequence[str] = (), unclassified: str | None = None
) -> list[DrawnCell]:
    """The areas of a zip of ROIs, or of one .roi, drawn on an image (H, W).

    A pixel belongs to an area that its centre lies in. The class is what the name says beside a number; of a ROI
    whose name is numbers alone the group g says it, if any: the g-th of classes; `unclassified` is that of all others.
    Raises FileNotFoundError, and ValueError that names the file and the ROI at fault.
    """
    return drawn(_outlines(path, classes, unclassified), size_hw)


def _traced(ring: Ring) -> ImagejRoi:
    """One line as ImageJ's wand draws it."""
    roi = ImagejRoi.frompoints(np.array(ring))  # as floats where a corner lies beyond the 60,535 of ImageJ's integers
    roi.roitype = ROI_TYPE.TRACED
    roi.options &= ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    roi.right, roi.bottom = roi.right - 1, roi.bottom - 1  # frompoints takes corners for pixels
    return roi


def _composite(rings: Sequence[Ring]) -> ImagejRoi:
    """Several lines; where they go round in opposite ways, all rules of filling agree."""
    path = [
        number
        for ring in rings
        for number in (MOVE, *ring[0], *(each for corner in ring[1:] for each in (LINE, *corner)), CLOSE)
    ]
    corners = np.array([corner for ring in rings for corner in ring])
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        shape_roi_size=len(path),
        multi_coordinates=np.array(path, np.float32),
    )


def _outlines(path: Path, classes: Sequence[str], unclassified: str | None) -> Iterator[Outline]:
    for name, content in _files(path):
        where = f"{path}: {name}"
        try:
            roi = ImagejRoi.frombytes(content)
            rings = _rings(roi)
        except Exception as error:  # roifile raises errors of several kinds
            raise ValueError(f"{where}: expected a ROI that is an area, found {error}; draw it again") from error
        class_name = _class_name(roi.name or Path(name).stem)
        if class_name is None and 0 < roi.group <= len(classes):
            class_name = classes[roi.group - 1]
        if class_name is None and unclassified is None:
            raise ValueError(
                f"{where}: expected a name with a class, as 0001-epithelial, found {roi.name or name}; "
                "rename it, or give all such ROIs one by --unclassified"
            )
        yield Outline(where, class_name or str(unclassified), rings)


def _files(path: Path) -> Iterable[tuple[str, bytes]]:
    """Names and bytes of the ROIs."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        return [(path.name, path.read_bytes())]
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(".roi") and "__MACOSX" not in name]
            if archive.namelist() and not names:
                raise zipfile.BadZipFile(f"no .roi but {archive.namelist()[0]}")
            return [(name, archive.read(name)) for name in names]
    except (zipfile.BadZipFile, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path}: expected a zip of ROIs, found {error}; save it again from the ROI manager"
        ) from error


def _class_name(name: str) -> str | None:
    """What a name says beside a number, None of numbers alone, which ImageJ gives on its own.

    >>> [_class_name(name) for name in ("0001-epithelial", "mast cell-17", "neutrophil", "0012-0034")]
    ['epithelial', 'mast cell', 'neutrophil', None]
    """
    if re.fullmatch(r"[\d-]*", name):
        return None
    numbered = re.fullmatch(r"\d+-(.+)|(.+?)-\d+", name)
    return (numbered[1] or numbered[2]) if numbered else name


def _rings(roi: ImagejRoi) -> list[Array]:
    """The closed lines (K, 2) of an area; ValueError for anything else."""
    if roi.composite and roi.multi_coordinates is not None:
        return _paths(roi.multi_coordinates.tolist())
    # bounds in whole pixels, which are those that ImageJ fills, also where it keeps fractions beside them
    low, high = np.array([roi.left, roi.top], np.float64), np.array([roi.right, roi.bottom], np.float64)
    if roi.roitype == ROI_TYPE.RECT and roi.subtype == ROI_SUBTYPE.UNDEFINED and not roi.rounded_rect_arc_size:
        return [np.stack([low, (high[0], low[1]), high, (low[0], high[1])])]
    if roi.roitype == ROI_TYPE.OVAL:
        angles = np.arange(OVAL_STEPS) * (2 * np.pi / OVAL_STEPS)
        return [(low + high) / 2 + (high - low) / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)]
    if roi.roitype in AREAS and not roi.options & ROI_OPTIONS.SPLINE_FIT:
        return [np.asarray(roi.coordinates(), np.float64)]
    kind = "a rounded rectangle" if roi.rounded_rect_arc_size else f"type {roi.roitype.name}"
    raise ValueError(f"{kind}, fitted by a spline" if roi.options & ROI_OPTIONS.SPLINE_FIT else kind)


def _paths(numbers: list[float]) -> list[Array]:
    """The closed lines of a path of moves, lines and curves, as Java's PathIterator has them."""
    rings: list[list[Array]] = []
    at = 0
    while at < len(numbers):
        step = int(numbers[at])
        after = at + 1 + 2 * POINTS[step]
        points = np.array(numbers[at + 1 : after], np.float64).reshape(-1, 2)
        if step == MOVE:
            rings.append([points])
        elif step != CLOSE:
            rings[-1].append(_curve(np.concatenate([rings[-1][-1][-1:], points])))
        at = after
    return [np.concatenate(ring) for ring in rings]


def _curve(control: Array) -> Array:
    """Points of a Bezier curve after its first; of one of two points, its end."""
    steps = CURVE_STEPS if len(control) > 2 else 1
    share = (np.arange(1, steps + 1) / steps)[:, None, None]
    points = np.repeat(control[None], steps, axis=0)
    while points.shape[1] > 1:  # de Casteljau's scheme
        points = points[:, :-1] * (1 - share) + points[:, 1:] * share
    return points[:, 0]
