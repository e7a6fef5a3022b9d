"""What the scripts and `cellseg` share: options from a recipe, and one clear line for what the user can mend.

Imports nothing heavy, so that --help answers at once.
"""

import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import cellseg.openmp  # noqa: F401  before torch

import tyro

from cellseg.config import RunConfig
from cellseg.config_fields import flat, replaced
from cellseg.recipes import RECIPES
from cellseg.user_errors import in_one_line
from cellseg.wrong_options import parsed

T = TypeVar("T", bound="TrainingOptions")


@dataclass(frozen=True)
class TrainingOptions:
    """What every command that trains accepts."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    data: Path = Path("data")
    """folder with train/ and test_release/, or a COCO json file"""
    weights: str | None = None
    """short for --model.weights: coco, imagenet, none, or the path of a state_dict"""
    classes: tuple[str, ...] | None = None
    """short for --dataset.class-names: a name for each class, in order"""


def parse_training(kind: type[T], description: str) -> T:
    """Options whose defaults are those of the recipe named on the command line, `best` if none is."""
    default = kind(config=RECIPES[_recipe_named(sys.argv[1:])]())
    options: T = parsed(lambda: tyro.cli(kind, default=default, description=description))
    short = {"model.weights": options.weights, "dataset.class_names": options.classes}
    given = {name: value for name, value in short.items() if value is not None}
    return replace(options, config=replaced(options.config, given))


def chosen_by_hand(config: RunConfig) -> dict[str, Any]:
    """The dotted fields in which a config departs from its recipe."""
    recipe = flat(RECIPES[config.recipe]())
    return {name: value for name, value in flat(config).items() if value != recipe[name]}


def set_by_hand(config: RunConfig) -> set[str]:
    """The dotted fields that an option of this command names, or in which a config departs from its recipe."""
    named = {word.partition("=")[0].replace("_", "-").replace(".no-", ".") for word in sys.argv[1:]}
    return {name for name in flat(config) if f"--{name.replace('_', '-')}" in named} | set(chosen_by_hand(config))


def flags_of(config: RunConfig) -> list[list[str]]:
    """The options of a training script, each with its values, from which parse_training makes this config.

    All but predict.calibration, which has no option.
    """
    options = [["--recipe", config.recipe], ["--seed", str(config.seed)]]
    for name, value in chosen_by_hand(config).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            *groups, last = option.split(".")
            options.append(["--" + ".".join([*groups, last if value else f"no-{last}"])])
        elif name not in ("seed", "predict.calibration"):
            options.append([f"--{option}", *map(str, value if isinstance(value, tuple) else [value])])
    return options


def user_errors_in_one_line(main: Callable[[], int | None]) -> Callable[[], None]:
    """The main function, leaving with code 2 and one message where the user can mend it, 130 on Ctrl-C."""

    @functools.wraps(main)
    def guarded() -> None:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("cellseg").setLevel(logging.INFO)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of every try to reach a server that is away
        logging.getLogger("mlflow.store.db.utils").disabled = True  # what it tells in 100 lines reaches us as an error
        try:
            sys.exit(main() or 0)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            line = in_one_line(error)
            if line is None:
                raise
            print(f"error: {line}", file=sys.stderr)
            sys.exit(2)

    return guarded


def _recipe_named(arguments: list[str]) -> str:
    """The recipe of `--recipe NAME` or `--recipe=NAME`; tyro refuses unknown names later, with the choices."""
    name = "best"
    for this, following in pairwise([*arguments, ""]):
        if this == "--recipe":
            name = following
        elif this.startswith("--recipe="):
            name = this.removeprefix("--recipe=")
    return name if name in RECIPES else "best"
