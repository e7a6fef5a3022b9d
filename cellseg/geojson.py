"""GeoJSON as QuPath writes and reads it: cells as polygons in pixels of the image.

Letters: H x W size of the image.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cellseg.cells import Cells
from cellseg.codes import Array
from cellseg.colors import color_of
from cellseg.drawn import DrawnCell, Outline, drawn
from cellseg.json_files import shown
from cellseg.outlines import Ring, outlines_of
from cellseg.whole_files import whole

CELLS = ("annotation", "detection", "cell")
"""object types of QuPath that are read; a feature without one is an annotation"""


def write(cells: Cells, path: Path) -> None:
    """Write cells as QuPath's detections, named by their numbers; the exact outlines of their pixels."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        rows = zip(cells.windows(), cells.labels.tolist(), cells.scores.tolist(), strict=True)
        for number, ((corner, window), label, score) in enumerate(rows, start=1):
            properties = {
                "objectType": "detection",
                "name": str(number),
                "classification": {"name": cells.class_names[label - 1], "color": color_of(label)},
                "measurements": {"score": score},
            }
            feature = {"type": "Feature", "geometry": _geometry(outlines_of(window, corner)), "properties": properties}
            file.write((",\n" if number > 1 else "\n") + json.dumps(feature, separators=(",", ":")))
        file.write("\n]}\n")


def read(path: Path, size_hw: tuple[int, int], unclassified: str | None = None) -> list[DrawnCell]:
    """The annotations, detections and cells, of which the nucleus, that QuPath exported for an image (H, W).

    A pixel belongs to a polygon that its centre lies in. `unclassified` is the class of objects without one. Raises
    FileNotFoundError, and ValueError that names the file and the object at fault, counted from 1.
    """
    features = _features(_parsed(path))
    return drawn(
        (_outline(feature, f"{path}: object {n}", unclassified) for n, feature in enumerate(features, start=1)), size_hw
    )


def _geometry(parts: list[list[Ring]]) -> dict[str, Any]:
    """A polygon, or several."""
    closed = [[[*ring, ring[0]] for ring in part] for part in parts]
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}


def _parsed(path: Path) -> list[Any]:
    """What stands in a FeatureCollection, a list, or alone."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{path}: expected GeoJSON, found {error}; export it again") from error
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise ValueError(f"{path}: expected GeoJSON with features, found {shown(content)}; export it again from QuPath")
    return content


def _features(features: list[Any]) -> Iterator[dict[str, Any]]:
    """The features, and those that QuPath nests in them."""
    for feature in features:
        yield feature
        children = _properties(feature).get("childObjects")
        if isinstance(children, list):
            yield from _features([each for each in children if isinstance(each, dict)])


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _outline(feature: dict[str, Any], where: str, unclassified: str | None) -> Outline:
    """The outline of one feature."""
    kind = _properties(feature).get("objectType", CELLS[0])
    if kind not in CELLS:
        raise ValueError(
            f"{where}: expected annotation, detection or cell as objectType, found {shown(kind)}; export cells alone"
        )
    geometry = feature.get("nucleusGeometry") or feature.get("geometry")
    name = _class_name(_properties(feature).get("classification")) or unclassified
    if name is None:
        raise ValueError(
            f"{where}: expected a classification, found none; set its class in QuPath, or give all such objects one by "
            "--unclassified"
        )
    return Outline(where, name, _rings(geometry, where))


def _class_name(classification: Any) -> str | None:
    """The name of a class in any of QuPath's notations, None where there is none; derived classes as QuPath shows them.

    >>> _class_name({"names": ["Tumor", "Positive"], "color": [255, 0, 0]})
    'Tumor: Positive'
    """
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else classification.get("name")
    return classification if isinstance(classification, str) and classification else None


def _rings(geometry: Any, where: str) -> list[Array]:
    """The closed lines of a polygon or of several."""
    kind = geometry.get("type") if isinstance(geometry, dict) else geometry
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(
            f"{where}: expected a Polygon or MultiPolygon, found {shown(kind)}; draw an area, or remove it"
        )
    polygons = geometry.get("coordinates")
    try:
        parts = polygons if kind == "MultiPolygon" else [polygons]
        return [
            np.array([point[:2] for point in ring], np.float64).reshape(len(ring), 2) for part in parts for ring in part
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected lists of points, x and y, found {shown(polygons)}; export it again"
        ) from error
