"""`cellseg sample`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Sample:
    """Write a made-up data set in the competition's layout, with the truth of its test images."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """new folder for train/ and test_release/"""
    train: int = 24
    """training images"""
    test: int = 6
    """test images"""
    seed: int = 0
    """the same seed gives the same bytes"""

    def run(self) -> int:
        """Write it."""
        from cellseg.sample import write

        write(self.folder, self.train, self.test, self.seed)
        print(f"{self.folder}: {self.train} training images, {self.test} test images, test_truth.json")
        return 0
