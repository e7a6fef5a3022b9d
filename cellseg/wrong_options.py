"""What tyro says of wrong options in a box of many lines, in one line."""

import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import TypeVar

T = TypeVar("T")

OURS = (
    (r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((\S*),\)\.", r"\2: expected \3, got \1"),
    (r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\.", r"\2: expected one of \3, got \1"),
    (r"Expected one of \{(.*)\}\.", r"expected a command, got none: one of \1"),
    (r"Missing value for argument '(.*)'\. Expected 1 values\.", r"\1: expected a value, got none"),
    (r"Missing value for argument '(.*)'\. Expected (\d+) values\.", r"\1: expected \2 values, got fewer"),
    (r"Missing from ([^:]*): (\S+).*", r"\1: expected \2, got none"),
    (r"Unrecognized or misplaced options: (.*?) \(applied to .*", r"\1: not expected here"),
    (r"Unrecognized options: (-.*?)(?:, .*)?", r"\1: no such option"),
    (r"Unrecognized options: (.*?)(?:, .*)?", r"\1: not expected here"),
    (r"Error parsing (.*?): no type matching (.*) could be instantiated from \[(.*?)\].*", r"\1: expected \2, got \3"),
    (r"Error parsing (.*?): invalid literal for int\(\) with base 10: (.*)", r"\1: expected a whole number, got \2"),
    (r"Error parsing (.*?): could not convert string to float: (.*)", r"\1: expected a number, got \2"),
    (r"Error parsing [\w.]+: (.*)", r"\1"),  # said by our own __post_init__
    (r"(?:Perhaps you meant|Arguments similar to \S+): ([^\s,]+).* in (\w+ \w+) --help", r"did you mean \1 of `\2`?"),
    (r"(?:Perhaps you meant|Arguments similar to \S+): ([^\s,]+).*", r"did you mean \1?"),
    (r"Available subcommands: (.*)", r"expected one of \1"),
    (r"For full helptext, \w+:? (.*)", r"`\1` tells more"),
    (r"Argument helptext:.*|Got errors:.*", ""),
)
"""tyro's sentences, and how we say them"""
TYPES = (
    (r"\{?\[(FLOAT|INT) \[\1 \.\.\.\]\]\}?", "numbers"),
    (r"expected FLOAT", "expected a number"),
    (r"expected INT", "expected a whole number"),
)


def parsed(parse: Callable[[], T]) -> T:
    """What a call of tyro returns. Raises ValueError, in one line, where it refuses the options."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse()
    except SystemExit as leaving:
        if leaving.code in (0, None):  # --help
            raise
        raise ValueError(in_one_line(said.getvalue())) from None


def in_one_line(box: str) -> str:
    """The sentences in a box of tyro; those that we know no words for are left as they are.

    >>> in_one_line("╭ Unrecognized options ╮\\n│ Unrecognized options: --trian, 3 │\\n│ ──── │\\n│ a note │")
    '--trian: no such option; a note'
    """
    framed = "╭" in box  # with its title in the frame; where the terminal knows ASCII alone, it is the first section
    lines = [line.strip("│ ") for line in box.splitlines() if line[:1] not in ("╭", "╰")]
    sections = re.split(r"^[─-]{3,}$", "\n".join(lines), flags=re.MULTILINE)
    told = [_ours(" ".join(section.split())) for section in sections[0 if framed else 1 :]]
    guesses = [each for each in told if each.startswith("did you mean")]
    return "; ".join(each for each in told if each and each not in guesses[1:])


def _ours(sentence: str) -> str:
    for theirs, ours in OURS:
        if found := re.fullmatch(theirs, sentence):
            return _plain(found.expand(ours))
    return sentence


def _plain(text: str) -> str:
    """Types in words, numbers in order; without quotes, and without None, which is an option that is not given."""
    text = re.sub(r"\{None\}\||, None\b|\bNone, ", "", re.sub(r"['\"]", "", text))
    for theirs, ours in TYPES:
        text = re.sub(theirs, ours, text)
    return re.sub(r"\d+(, \d+)+(?=, got)", lambda found: ", ".join(sorted(found[0].split(", "), key=int)), text)
