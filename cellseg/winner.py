"""What a study found best, as a file that only fits the data and the recipe it was found on."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellseg.config import RunConfig
from cellseg.config_fields import replaced
from cellseg.whole_files import write_whole


@dataclass(frozen=True)
class Winner:
    """The best trial of a study."""

    study: str
    digest: str
    """of the data that the study trained on"""
    recipe: str
    trial: int
    value: float
    """validation AP50: the mean over its seeds, or of its one short training where seeds is 0"""
    overrides: dict[str, Any]
    """dotted config fields, such as train.learning_rate"""
    seeds: int = 0
    """trainings of full length that value is the mean of"""
    low: float | None = None
    """the least of them"""
    high: float | None = None
    """the greatest of them"""

    @property
    def score(self) -> str:
        """Such as `AP50 0.213 (0.205 to 0.221, 3 seeds)`."""
        if self.low is None or self.high is None:
            return f"AP50 {self.value:.3f} (one short training)"
        return f"AP50 {self.value:.3f} ({self.low:.3f} to {self.high:.3f}, {self.seeds} seeds)"

    def applied(self, config: RunConfig, by_hand: Collection[str]) -> RunConfig:
        """The config with the winner's fields, except those that were chosen by hand."""
        return replaced(config, {name: value for name, value in self.overrides.items() if name not in by_hand})


def write_winner(winner: Winner, studies: Path) -> Path:
    """The path <studies>/<study>/best.json, written whole or not at all."""
    path = studies / winner.study / "best.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(json.dumps(asdict(winner), indent=1), path)
    return path


def read_winner(studies: Path, digest: str, recipe: str, study: str | None = None) -> Winner | None:
    """The winner of the named study, or else of the newest study on this data and recipe; None where there is none.

    Raises FileNotFoundError where the named study has no winner, ValueError where it was made on other data or from
    another recipe.
    """
    if study is None:
        paths = sorted(studies.glob("*/best.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        fitting = (winner for winner in map(_read, paths) if (winner.digest, winner.recipe) == (digest, recipe))
        return next(fitting, None)
    path = studies / study / "best.json"
    if not path.is_file():
        known = ", ".join(sorted(each.parent.name for each in studies.glob("*/best.json"))) or "none"
        raise FileNotFoundError(f"--from-study {study}: no {path}; studies with a winner: {known}")
    winner = _read(path)
    if (winner.digest, winner.recipe) != (digest, recipe):
        raise ValueError(
            f"--from-study {study}: it searched {winner.recipe} on data {winner.digest}, this is {recipe} "
            f"on data {digest}; search again with `python search/optuna_study.py`, or leave --from-study out"
        )
    return winner


def _read(path: Path) -> Winner:
    try:
        return Winner(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:  # TypeError: another dict, or none
        raise ValueError(f"{path}: expected the winner of a study, got {error}; delete it and search again") from error
