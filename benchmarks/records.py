"""What the accuracy benchmark has measured, as one JSON file for each data set."""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cellseg.whole_files import write_whole

BEGUN = "training.json"
"""what a training was begun with, in its folder"""


@dataclass(frozen=True)
class Rate:
    """How fast a recipe trains on a device; measured once, so that the length of its schedule stays."""

    recipe: str
    config: str
    """digest of its settings"""
    data: str
    """digest of the data"""
    device: str
    step_s: float
    """median seconds of a training step, loading included"""
    load: str
    """of the machine in the minute before: 0 where it was quiet"""
    date: str

    @property
    def key(self) -> tuple[str, ...]:
        """What one rate is measured for."""
        return self.recipe, self.config, self.data, self.device


@dataclass(frozen=True)
class Record:
    """What one finished training brought."""

    recipe: str
    seed: int
    budget: str
    """such as "15 min" or "200 steps\""""
    config: str
    """digest of its settings"""
    data: str
    """digest of the data"""
    device: str
    """whose rate fixed the steps"""
    steps: int
    seconds: float
    """of the training, without validation"""
    parameters: int
    metrics: Mapping[str, float]
    """of evaluate.Scores, on the held-out images"""
    per_class: Mapping[str, Mapping[str, float]]
    held_out: tuple[str, ...]
    """names of the images"""
    date: str
    commit: str
    torch: str
    split: int = 0
    """seed of the split"""
    trained_on: str = ""
    """where that is another device"""

    @property
    def key(self) -> tuple[str | int, ...]:
        """What one record is kept for; it stays when the recipe changes, as the tables that it is in do."""
        return self.recipe, self.seed, self.budget, self.config, self.data, self.device, self.split


def folder_of(file: Path, recipe: str, budget: str, seed: int, split: int) -> Path:
    """Where a training of the data set that the file is of keeps its checkpoints."""
    name = f"{recipe} {budget} seed {seed}{f' split {split}' if split else ''}"
    return file.parent / "runs" / file.stem / name.replace("/", "-")


@dataclass(frozen=True)
class Book:
    """All rates and records of a data set."""

    rates: tuple[Rate, ...] = ()
    records: tuple[Record, ...] = ()

    def rate(self, recipe: str, config: str, data: str, device: str) -> Rate | None:
        """The rate that was measured for just this, if one was."""
        return next((each for each in self.rates if each.key == (recipe, config, data, device)), None)

    def record(
        self, recipe: str, seed: int, budget: str, config: str, data: str, device: str, split: int = 0
    ) -> Record | None:
        """The finished training of just this, if there is one."""
        key = recipe, seed, budget, config, data, device, split
        return next((each for each in self.records if each.key == key), None)

    def having(self, entry: Rate | Record) -> "Book":
        """The book with an entry more, in place of one with its key."""
        if isinstance(entry, Rate):
            return replace(self, rates=(*(each for each in self.rates if each.key != entry.key), entry))
        return replace(self, records=(*(each for each in self.records if each.key != entry.key), entry))


def read(path: Path) -> Book:
    """The book of a file; an empty one where there is none."""
    if not path.exists():
        return Book()
    try:
        content = json.loads(path.read_text())
        records = [Record(**each | {"held_out": tuple(each["held_out"])}) for each in content["records"]]
        return Book(tuple(Rate(**each) for each in content["rates"]), tuple(records))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected records of this version, got {error}; move the file away") from error


def add(entry: Rate | Record, path: Path) -> Book:
    """Write an entry beside those that the file has by now, and return them all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as held:  # several trainings may end at once
        fcntl.flock(held, fcntl.LOCK_EX)
        book = read(path).having(entry)
        write_whole(json.dumps(asdict(book), indent=1) + "\n", path)
    return book


def digest_of(settings: Mapping[str, Any]) -> str:
    """16 hex digits of plain settings, in any order."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
