"""What is claimed, and the bar that each claim is held to, on two CPU cores: the one place for both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rows import Row, shown


@dataclass(frozen=True)
class Bar:
    """What a row must reach; 0 and empty ask for nothing."""

    ratio: float = 0.0
    """times faster than theirs"""
    memory_ratio: float = 0.0
    """times less memory than theirs"""
    at_least: Mapping[str, float] = field(default_factory=dict)
    """of figures in the notes"""
    at_most: Mapping[str, float] = field(default_factory=dict)
    """of figures in the notes; `growth` is our time over that of the claim's first size"""

    def met(self, row: Row) -> bool:
        """Whether the row reaches the bar; not where a figure is missing."""
        return (
            (row.ratio or 0.0) >= self.ratio
            and (row.memory_ratio or 0.0) >= self.memory_ratio
            and all(row.notes.get(name, float("-inf")) >= value for name, value in self.at_least.items())
            and all(row.notes.get(name, float("inf")) <= value for name, value in self.at_most.items())
        )

    def __str__(self) -> str:
        parts = [f"{shown(self.ratio)}x time"] if self.ratio else []
        parts += [f"{shown(self.memory_ratio)}x memory"] if self.memory_ratio else []
        parts += [f"{name} >= {shown(value)}" for name, value in self.at_least.items()]
        parts += [f"{name} <= {shown(value)}" for name, value in self.at_most.items()]
        return ", ".join(parts)


@dataclass(frozen=True)
class Claim:
    """One script beside this file, of the same name as its id."""

    title: str
    unit: str
    """of the sizes"""
    theirs: str
    """what ours is measured against, in a few words"""
    bars: Mapping[tuple[str, float | None], Bar]
    """by variant and size; None stands for the sizes that have no bar of their own"""

    def bar_of(self, row: Row) -> Bar | None:
        """The bar of a row, if it has one."""
        return self.bars.get((row.variant, row.size)) or self.bars.get((row.variant, None))


CLAIMS: dict[str, Claim] = {
    "augment": Claim(
        "a training view and its boxes",
        "cells",
        "albumentations on N masks",
        {("geometry", 161): Bar(ratio=30), ("geometry", 700): Bar(ratio=100)},
    ),
    "targets": Claim(
        "mask targets of 128 positives",
        "cells",
        "torchvision's resized masks and RoIAlign",
        {("", None): Bar(ratio=10, memory_ratio=50)},
    ),
    "rle": Claim(
        "run-length codes of detections",
        "detections",
        "torchvision's pasting, pycocotools' encode",
        {("", None): Bar(ratio=200, memory_ratio=100)},
    ),
    "evaluate": Claim(
        "scores of a validation",
        "images",
        "pycocotools' COCOeval",
        {("all scores", None): Bar(ratio=15, at_most={"difference": 1e-9})},
    ),
    "read": Claim(
        "checked images and label maps",
        "images",
        "tifffile's decoding alone, the lower limit",
        {("", None): Bar(ratio=1 / 1.5)},
    ),
    "step": Claim(
        "a training step on 1024 px",
        "cells",
        "torchvision's MaskRCNN of the same modules",
        {("", None): Bar(ratio=1.0, at_most={"growth": 1.15})},
    ),
    "loader": Claim("waiting for data in training", "workers", "nobody", {}),
    "match": Claim(
        "anchors matched to cells",
        "cells",
        "torchvision's IoU matrix and Matcher",
        {("", None): Bar(memory_ratio=5)},
    ),
    "tiles": Claim(
        "prediction of a large image",
        "pixels a side",
        "the same network on the whole image at once",
        {
            ("", side): Bar(
                at_least={"f1": 0.98} if side == 2048 else {},  # larger ones do not fit everywhere as a whole
                at_most={"gb": 1.0, "growth_per_pixel": 1.2, **({"cut": 0, "doubled_more": 0} if side == 2048 else {})},
            )
            for side in (2048, 4096, 8192)
        },
    ),
}


def verdict(row: Row) -> tuple[str, str]:
    """The bar of a row and "yes", "no" or "", as words."""
    bar = CLAIMS[row.claim].bar_of(row)
    return (str(bar), "yes" if bar.met(row) else "no") if bar else ("", "")


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table for RESULTS.md."""
    head = "| claim | size | ours | theirs | faster | ours MB | theirs MB | less memory | bar | met | notes |"
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|---|---|---|", *map(_line, rows)]
    titles = [f"- `{name}`: {claim.title}, against {claim.theirs}" for name, claim in CLAIMS.items()]
    present = {row.claim for row in rows}
    return "\n".join([*lines, "", *(title for title in titles if title.split("`")[1] in present), ""])


def _line(row: Row) -> str:
    times = (row.ratio, row.memory_ratio)
    faster, less = (f"{shown(each)}x" if each else "-" for each in times)
    size = f"{shown(row.size)} {CLAIMS[row.claim].unit}" + (f", {row.variant}" if row.variant else "")
    seconds = (f"{shown(each)} s" if each else "-" for each in (row.ours_s, row.theirs_s))
    notes = [f"{name} {shown(value)}" for name, value in row.notes.items() if name not in ("variant", "same_answer")]
    ours, theirs = seconds
    cells = (f"`{row.claim}`", size, ours, theirs, faster, shown(row.ours_mb), shown(row.theirs_mb), less)
    return f"| {' | '.join((*cells, *verdict(row), ', '.join(notes)))} |"
