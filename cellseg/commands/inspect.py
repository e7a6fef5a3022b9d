"""`cellseg inspect`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from cellseg.commands.table import show


@dataclass(frozen=True)
class Inspect:
    """Show what a data set looks like: images, cells, colours, and what anchors could find of it."""

    data: Positional[Path]
    """folder with train/, or a COCO json file"""
    json: bool = False
    """print JSON instead of a table"""
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"
    """colour order of the files"""

    def run(self) -> int:
        """Print it."""
        from cellseg.inspection import inspect

        found = inspect(self.data, self.channel_order)
        show(found, as_json=self.json)
        return 0
