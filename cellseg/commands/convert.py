"""`cellseg convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Convert:
    """Make a data set of images that have annotations of QuPath or ImageJ beside them.

    Beside `a.tif`, png or jpg: `a.geojson`, `a.geojson.json`, `a.rois.zip`, `a.zip`, `a.roi`, or `a.labels.tif` with
    `a.csv.csv`.
    """

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """folder of the images and annotations"""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """new folder for annotations.json (COCO) and images/"""
    classes: tuple[str, ...] = ()
    """all classes, in order; without, those that are found, by name"""
    unclassified: str | None = None
    """class of objects that have none; without, they are refused"""

    def run(self) -> int:
        """Write it, and print what it holds."""
        from cellseg.conversion import convert

        counts = convert(self.source, self.out, self.classes, self.unclassified)
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        print(f"{self.out}: {sum(counts.values())} cells: {shown}")
        return 0
