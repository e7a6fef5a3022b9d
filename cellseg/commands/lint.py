"""`cellseg lint`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Lint:
    """Check a submission the way a grader would trip over it."""

    submission: Annotated[Positional[Path], arg(metavar="SUBMISSION")]
    """submission zip, or test-results.json"""
    ids: Annotated[Positional[Path], arg(metavar="IDS")]
    """test_image_name_to_ids.json"""

    def run(self) -> int:
        """Print the problems; code 1 where there are any."""
        from cellseg.export import lint
        from cellseg.json_files import read_image_ids, read_results

        results = read_results(self.submission)
        problems = lint(results, read_image_ids(self.ids))
        if not results:
            problems = ["no results: pycocotools refuses an empty list"]
        print("\n".join(problems) or f"{self.submission}: no problem")
        return 1 if problems else 0
