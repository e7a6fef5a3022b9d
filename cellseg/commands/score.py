"""`cellseg score`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cellseg.commands.table import show


@dataclass(frozen=True)
class Score:
    """Score results against truth: mask AP at 100 detections and uncapped, per class, PQ, AJI and F1."""

    results: Annotated[Positional[Path], arg(metavar="RESULTS")]
    """a list of COCO results as json, or a submission zip"""
    truth: Annotated[Positional[Path], arg(metavar="TRUTH")]
    """a COCO json file"""
    json: bool = False
    """print JSON instead of a table"""
    threshold: float = 0.5
    """score under which a result does not count for PQ, AJI and F1"""

    def run(self) -> int:
        """Print it."""
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold: expected 0 to 1, got {self.threshold}")
        from cellseg.evaluate import score
        from cellseg.json_files import read_scorable, read_truth

        scores = score(read_truth(self.truth), read_scorable(self.results), self.threshold)
        show({**scores.metrics, "per_class": scores.per_class}, as_json=self.json)
        return 0
