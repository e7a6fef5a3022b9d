import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import tyro
from tyro.conf import Positional

from cellseg.cli import COMMANDS
from cellseg.wrong_options import in_one_line, parsed


@dataclass(frozen=True)
class Inner:
    """Options in a group."""

    epochs: int = 1
    rates: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Options:
    """Options of all kinds."""

    inner: Inner
    source: Positional[Path]
    size: tuple[int, int] = (1, 2)
    share: float | None = None
    kind: Literal["a", "b"] = "a"
    views: Literal[1, 2, 10] | None = None
    flag: bool = False

    def __post_init__(self):
        if self.size[0] < 0:
            raise ValueError("--size: expected at least 0")


def options(*arguments):
    return parsed(lambda: tyro.cli(Options, args=arguments, prog="do"))


def test_right_options_are_parsed():
    assert options("a", "--inner.epochs", "3") == Options(Inner(3), Path("a"))


@pytest.fixture(params=["utf-8", "ascii"])
def terminal(request, monkeypatch):
    """tyro draws frames where the terminal knows more than ASCII."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), request.param))


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "do: expected PATH, got none"),
        (["a", "b"], "b: not expected here"),
        (["a", "--sise", "1", "2"], "--sise: no such option; did you mean --size?"),
        (["a", "--inner.epoch", "1"], "--inner.epoch: no such option; did you mean --inner.epochs?"),
        (["a", "--inner.epochs", "x"], "--inner.epochs: expected a whole number, got x"),
        (["a", "--inner.epochs"], "--inner.epochs: expected a value, got none"),
        (["a", "--inner.rates", "1", "x"], "--inner.rates: expected numbers, got 1, x"),
        (["a", "--size", "1"], "--size: expected 2 values, got fewer"),
        (["a", "--share", "x"], "--share: expected a number, got x"),
        (["a", "--kind", "c"], "--kind: expected one of a, b, got c"),
        (["a", "--views", "3"], "--views: expected one of 1, 2, 10, got 3"),
        (["a", "--size", "-1", "2"], "--size: expected at least 0"),
    ],
)
def test_wrong_options_are_told_in_one_line_with_where_to_read_on(arguments, message):
    with pytest.raises(ValueError, match="--") as caught:
        options(*arguments)
    assert str(caught.value) == f"{message}; `do --help` tells more"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a command, got none: one of sample, convert, inspect"),
        (["predcit", "best.pt"], "predcit: not expected here; expected one of sample, convert, inspect, predict"),
        (["predict"], "cellseg predict: expected CHECKPOINT, got none"),
        (["export", "best.pt"], "cellseg export: expected --onnx, got none"),
        (["lint", "a", "b", "--treshold", "1"], "--treshold: no such option; did you mean --threshold of `cellseg sco"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(arguments, message):
    with pytest.raises(ValueError, match="cellseg") as caught:
        parsed(lambda: tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="cellseg", args=arguments))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "  " not in str(caught.value)


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as caught:
        options("--help")
    assert caught.value.code == 0
    assert "Options of all kinds" in capsys.readouterr().out


def test_words_that_we_do_not_know_are_left_as_they_are():
    box = "╭─ A new error ─╮\n│ Something that │\n│ is new         │\n│ ────────────── │\n│ and a note     │\n╰────╯\n"
    assert in_one_line(box) == "Something that is new; and a note"
