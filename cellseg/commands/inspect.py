"""`cellseg inspect`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from cellseg.survey import Survey


@dataclass(frozen=True)
class Inspect:
    """Show what a data set looks like, as a table and a figure: images, cells, colours, anchors, caps, and warnings.

    Broken files are named and passed over; the code is 1 then.
    """

    data: Positional[Path]
    """folder with train/, or a COCO json file"""
    json: bool = False
    """print JSON instead of a table"""
    figure: str = "auto"
    """the PNG to write; auto is <name of the data>-inspect.png in the current folder, none writes none"""
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"
    """colour order of the files"""

    def run(self) -> int:
        """Print it and draw it; code 1 where files are broken."""
        from cellseg.config import DatasetConfig
        from cellseg.inspection import inspect
        from cellseg.inspection_table import table
        from cellseg.survey import survey

        seen = survey(self.data, DatasetConfig(channel_order=self.channel_order))
        found = inspect(seen)
        if not self.json:
            print(table(found), flush=True)
        path = self._drawn(seen, found)
        if self.json:
            print(json.dumps({**found, "figure": path}, indent=1))
        elif path:
            print(f"figure: {path}")
        return 1 if seen.broken else 0

    def _drawn(self, seen: "Survey", found: dict[str, Any]) -> str | None:
        """Where the figure was written; None where none is wanted."""
        if self.figure == "none":
            return None
        from cellseg.inspection_figure import figure
        from cellseg.plots import save

        name = self.data.resolve().name if self.data.is_dir() else self.data.stem
        path = f"{name}-inspect.png" if self.figure == "auto" else self.figure
        save(figure(seen, found, name), Path(path))
        return path
