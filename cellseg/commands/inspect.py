"""`cellseg inspect`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from cellseg.whole_files import require_place

if TYPE_CHECKING:
    from cellseg.survey import Survey


@dataclass(frozen=True)
class Inspect:
    """Show what a data set looks like, as a table and a figure: images, cells, colours, anchors, caps, and warnings.

    Broken files are named and passed over; the code is 1 then.
    """

    data: Annotated[Positional[Path], arg(metavar="DATA")]
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

        figure = self._figure()
        seen = survey(self.data, DatasetConfig(channel_order=self.channel_order))
        found = inspect(seen)
        if not self.json:
            print(table(found), flush=True)
        if figure:
            self._draw(seen, found, figure)
        if self.json:
            print(json.dumps({**found, "figure": str(figure) if figure else None}, indent=1))
        elif figure:
            print(f"figure: {figure}")
        return 1 if seen.broken else 0

    def _name(self) -> str:
        return self.data.resolve().name if self.data.is_dir() else self.data.stem

    def _figure(self) -> Path | None:
        """Where the figure is to be written; None where none is wanted."""
        if self.figure == "none":
            return None
        path = Path(f"{self._name()}-inspect.png" if self.figure == "auto" else self.figure)
        if path.suffix != ".png":
            raise ValueError(f"--figure {path}: expected a name that ends in .png, auto or none")
        require_place(path)
        return path

    def _draw(self, seen: "Survey", found: dict[str, Any], path: Path) -> None:
        from cellseg.inspection_figure import figure
        from cellseg.plots import save

        save(figure(seen, found, self._name()), path)
