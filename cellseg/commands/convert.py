"""`cellseg convert`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Convert:
    """Make a data set of images that have annotations of QuPath or ImageJ beside them.

    Beside `a.tif`, png or jpg: `a.geojson`, `a.rois.zip`, `a.zip`, `a.roi`, or `a.labels.tif` with `a.csv.csv`.
    """

    source: Positional[Path]
    """folder of the images and annotations"""
    out: Positional[Path]
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
