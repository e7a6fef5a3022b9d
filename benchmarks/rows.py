"""What one size of a claim brought, as JSON and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Notes = Mapping[str, Any]
FIELDS = ("claim", "size", "ours_s", "theirs_s", "ratio", "ours_mb", "theirs_mb", "memory_ratio", "notes")
"""of a row in JSON"""


@dataclass(frozen=True)
class Row:
    """What one size of a claim brought; None where there is no opponent, or where it was not measured."""

    claim: str
    size: float
    ours_s: float
    theirs_s: float | None
    ours_mb: float | None
    theirs_mb: float | None
    notes: Notes = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.theirs_s is None else self.theirs_s / self.ours_s

    @property
    def memory_ratio(self) -> float | None:
        """How many times less memory ours needs at its peak."""
        return None if self.theirs_mb is None or self.ours_mb is None else self.theirs_mb / self.ours_mb

    @property
    def variant(self) -> str:
        """Which of several rows of one size it is."""
        return str(self.notes.get("variant", ""))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        values = asdict(self) | {"ratio": self.ratio, "memory_ratio": self.memory_ratio}
        return {name: values[name] for name in FIELDS}


def row_of(values: Mapping[str, Any]) -> Row:
    """The inverse of Row.to_dict."""
    return Row(**{name: value for name, value in values.items() if name not in ("ratio", "memory_ratio")})


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns."""
    head = ("claim", "size", "ours s", "theirs s", "ratio", "ours MB", "theirs MB", "ratio", "notes")
    lines = [head, *(cells_of(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    )


def cells_of(row: Row) -> tuple[str, ...]:
    """The texts of a row's columns."""
    numbers = (row.ours_s, row.theirs_s, row.ratio, row.ours_mb, row.theirs_mb, row.memory_ratio)
    notes = ", ".join(f"{name} {shown(value)}" for name, value in row.notes.items() if name != "same_answer")
    return (row.claim, shown(row.size), *map(shown, numbers), notes)


def shown(value: object) -> str:
    """A value in few digits."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
