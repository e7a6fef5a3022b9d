"""Images and their cells in the notation of COCO, as json files and pycocotools have them.

Letters: N cells, C classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cellseg.codes import Code, windows_of


@dataclass(frozen=True)
class CodedImage:
    """One image and its cells."""

    image_id: int
    file_name: str
    size_hw: tuple[int, int]
    codes: Sequence[Code]
    """(N)"""
    labels: Sequence[int]
    """(N), 1..C"""
    scores: Sequence[float] | None = None
    """(N), of cells that were found"""


def truth_of(images: Iterable[CodedImage], class_names: Sequence[str]) -> dict[str, Any]:
    """The COCO dict of images; categories 1..C, annotations numbered from 1 on: 0 is "unmatched" to pycocotools."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        height, width = image.size_hw
        entries.append({"id": image.image_id, "file_name": image.file_name, "height": height, "width": width})
        for n, ((x, y), window) in enumerate(windows_of(image.codes)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.image_id,
                    "category_id": image.labels[n],
                    "bbox": [x, y, window.shape[1], window.shape[0]],
                    "area": int(window.sum()),
                    "iscrowd": 0,
                    "segmentation": image.codes[n],
                }
                | ({"score": image.scores[n]} if image.scores is not None else {})
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
    return {"images": entries, "categories": categories, "annotations": annotations}
