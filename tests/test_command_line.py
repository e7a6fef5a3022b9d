import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cellseg.command_line import (
    TrainingOptions,
    chosen_by_hand,
    flags_of,
    parse_training,
    set_by_hand,
    user_errors_in_one_line,
)
from cellseg.config_fields import flat, replaced
from cellseg.recipes import RECIPES


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of a script."""

    trials: int = 10
    """how many"""


@pytest.fixture
def parsed(monkeypatch):
    def parse(*arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        return parse_training(Options, "A script.")

    return parse


def left_with(main, capsys):
    """Exit code, and what was printed to standard error."""
    with pytest.raises(SystemExit) as caught:
        user_errors_in_one_line(main)()
    return caught.value.code, capsys.readouterr().err


def test_without_a_recipe_the_defaults_are_those_of_best(parsed):
    options = parsed()
    assert options.config == RECIPES["best"]()
    assert (options.data, options.weights, options.trials) == (Path("data"), None, 10)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_defaults_are_those_of_the_named_recipe(parsed, recipe):
    assert parsed("--recipe", recipe).config == RECIPES[recipe]()
    assert parsed(f"--recipe={recipe}", "--trials", "3").config == RECIPES[recipe]()


def test_options_change_the_recipe_wherever_they_stand(parsed):
    options = parsed("--train.epochs", "7", "--recipe", "demo", "--augment.no-flips", "--model.anchor-sizes", "4", "8")
    changes = {"train.epochs": 7, "augment.flips": False, "model.anchor_sizes": [4, 8]}
    assert options.config == replaced(RECIPES["demo"](), changes)
    assert chosen_by_hand(options.config) == {**changes, "model.anchor_sizes": (4.0, 8.0)}


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--train.learning-rate", "1e-3"], "train.learning_rate"),
        (["--train.learning_rate=1e-3"], "train.learning_rate"),
        (["--model.no-mask-quality"], "model.mask_quality"),
        (["--model.anchor-sizes", "None"], "model.anchor_sizes"),
    ],
)
def test_a_field_that_is_named_is_set_by_hand_also_where_the_recipe_has_the_same(monkeypatch, words, field):
    monkeypatch.setattr("sys.argv", ["train.py", "--recipe", "demo", *words])
    assert set_by_hand(RECIPES["demo"]()) == {"recipe", field}
    assert set_by_hand(replaced(RECIPES["demo"](), {"seed": 9})) == {"recipe", field, "seed"}


OTHER = {
    "dataset.channel_order": "bgr",
    "dataset.color": "gray",
    "augment.zoom_jitter": 2.5,
    "dataset.folds": 5,
    "dataset.fold": 4,
    "model.backbone": "convnext_tiny",
    "model.weights": "a folder/it's.pt",
    "model.norm": "group",
    "model.mask_size": 56,
    "model.box_stages": 3,
    "model.class_shares": (0.1, 1 / 3, 1e-7),
    "train.optimizer": "sgd",
    "predict.views": 8,
    "predict.calibration": None,
    "predict.tile": 2048,
    "device": "cpu",
}


OPEN = {"model.anchor_sizes": (5.5, 8.0), "model.aspect_ratios": (0.5,), "dataset.class_names": ("a", "b c")}
"""other values of fields that a recipe leaves open; of the rest, 3"""


def other(recipe):
    """A config of the recipe in which every other field that has an option has another value."""
    changes = {}
    for name, value in flat(RECIPES[recipe]()).items():
        if name in OTHER and value != OTHER[name]:
            changes[name] = OTHER[name]
        elif isinstance(value, bool):
            changes[name] = not value
        elif isinstance(value, int | float):
            changes[name] = value * 2 + 1 if isinstance(value, int) else value / 7 + 0.01
        elif isinstance(value, tuple):
            changes[name] = tuple(each + 1 for each in value)
        elif value is None and name != "predict.calibration":
            changes[name] = OPEN.get(name, 3)
    return replaced(RECIPES[recipe](), changes)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_options_of_a_config_give_it_again_whatever_was_changed(recipe, parsed):
    config = other(recipe)
    left = set(flat(config)) - set(chosen_by_hand(config))
    assert left <= {"recipe", *OTHER}
    assert parsed(*(word for option in flags_of(config) for word in option)).config == config


def test_the_options_of_a_recipe_are_its_name_and_seed():
    assert flags_of(RECIPES["reference"]()) == [["--recipe", "reference"], ["--seed", "63"]]


def test_what_a_recipe_sets_and_a_config_leaves_to_the_plan_is_given_as_none(parsed):
    config = replaced(RECIPES["reference"](), {"model.anchor_sizes": None, "predict.zoom": None})
    assert ["--model.anchor-sizes", "None"] in flags_of(config)
    assert parsed(*(word for option in flags_of(config) for word in option)).config == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_is_chosen_by_hand_in_a_recipe(recipe):
    assert chosen_by_hand(RECIPES[recipe]()) == {}


def test_weights_is_short_for_the_model_s(parsed):
    options = parsed("--recipe", "reference", "--weights", "none")
    assert options.config.model.weights == "none"
    assert chosen_by_hand(options.config) == {"model.weights": "none"}
    assert parsed("--model.weights", "some.pt").config.model.weights == "some.pt"


def test_classes_is_short_for_the_data_set_s_class_names(parsed):
    options = parsed("--classes", "round", "flat", "--recipe", "demo")
    assert options.config.dataset.class_names == ("round", "flat")
    assert options == parsed("--recipe", "demo", "--dataset.class-names", "round", "flat", "--classes", "round", "flat")


@pytest.mark.parametrize(
    "arguments", [("--recipe", "fastest"), ("--recipe",), ("--trials", "many"), ("--no-such-option",), ("stray",)]
)
def test_wrong_options_are_one_line_with_code_2(parsed, capsys, arguments):
    code, said = left_with(lambda: parsed(*arguments), capsys)
    assert code == 2
    assert re.fullmatch(r"error: .*; `.* --help` tells more\n", said)


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError])
def test_what_the_user_can_mend_is_said_in_one_line_with_code_2(capsys, error):
    def main():
        raise error("data/train: expected a folder, found a file")

    assert left_with(main, capsys) == (2, "error: data/train: expected a folder, found a file\n")


def test_a_full_disk_says_what_to_do(capsys):
    def main():
        raise OSError(28, "No space left on device", "runs/last.pt")

    code, said = left_with(main, capsys)
    assert code == 2
    assert said.startswith("error: runs/last.pt: no space left on the disk; free some")


def test_other_errors_keep_their_traceback():
    def main():
        raise KeyError("our own mistake")

    with pytest.raises(KeyError):
        user_errors_in_one_line(main)()


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_code_is_what_the_main_function_returns(capsys, returned, code):
    assert left_with(lambda: returned, capsys) == (code, "")


def test_control_c_leaves_with_code_130(capsys):
    def main():
        raise KeyboardInterrupt

    assert left_with(main, capsys) == (130, "stopped\n")


def test_parsing_needs_nothing_heavy():
    lines = "import sys, cellseg.command_line; print({'torch', 'mlflow', 'optuna', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
