"""What `cellseg inspect` tells, as lines to read."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cellseg.wording import several, short

WIDTH = 110
NAMES = 22
"""columns of what stands at the left"""
CLASSES = 12
"""how many are listed, those with the most cells; JSON has all"""


def table(found: Mapping[str, Any]) -> str:
    """What `inspection.inspect` returns, in lines of WIDTH columns, or more where a single word is longer."""
    parts = (_images(found), _classes(found), _network(found), _warnings(found["warnings"]))
    return "\n\n".join("\n".join(part) for part in parts)


def _images(found: Mapping[str, Any]) -> Iterator[str]:
    tests, height, width = found["test_images"], found["height"], found["width"]
    cells, density = found["cells_per_image"], found["cells_per_megapixel"]
    yield from _row("images", f"{found['images']:,}" + ("" if tests is None else f", and {tests:,} to be predicted"))
    yield from _row("height x width", f"{_range(height)} x {_range(width)} px, median {height[1]:,} x {width[1]:,}")
    yield from _row("cells", f"{found['cells']:,}; {_range(cells)} an image, median {cells[1]:,}")
    yield from _row("density", f"{_range(density)} cells a megapixel, median {density[1]:,}")
    yield from _row("channel order", found["channel_order_reason"])


def _classes(found: Mapping[str, Any]) -> Iterator[str]:
    """A line a class, and one for all."""
    counts, ceiling = found["cells_per_class"], found["ap_ceiling"]
    rows = [["class", "cells", "share", "images", "side 5 %", "median", "95 %", "AP ceiling"]]
    for name in listed_classes(counts, CLASSES):
        numbers = (f"{counts[name]:,}", f"{counts[name] / found['cells']:.1%}", f"{found['images_per_class'][name]:,}")
        measures = ["-"] * 4  # of a class without a cell
        if counts[name]:
            measures = [f"{side:.0f}" for side in found["cell_sides"][name]] + [f"{ceiling['per_class'][name]:.3f}"]
        rows.append([short(name, NAMES - 2), *numbers, *measures])
    mean = f"{ceiling['100_per_class_and_image']:.3f}"
    rows.append(["all", f"{found['cells']:,}", "", f"{found['images']:,}", "", "", "", mean])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *row in rows:
        yield f"{name:{NAMES}}" + "  ".join(f"{each:>{width}}" for each, width in zip(row, widths[1:], strict=True))
    if len(counts) > CLASSES:
        yield f"… and {len(counts) - CLASSES} classes with fewer cells"
    yield "side: of a cell's box, px; AP ceiling: of a perfect detector at COCO's 100 detections of a class and image"


def _network(found: Mapping[str, Any]) -> Iterator[str]:
    plan, recall, ceiling = found["plan"], found["best_possible_recall"], found["ap_ceiling"]
    sets = ", ".join(f"{recall[name]:.3f} {name}" for name in ("torchvision", "reference", "fitted"))
    yield from _row("best possible recall", f"{sets}: cells that an anchor meets with an IoU of .7, at the Plan's zoom")
    of_class = f"{ceiling['100_per_class_and_image']:.3f} where 100 detections of a class and image count (COCO)"
    of_image = f"{ceiling['100_per_image']:.3f} where a network keeps 100 an image (torchvision)"
    yield from _row("AP ceiling", f"{of_class}, {of_image}")
    sizes, ratios = plan["anchor_sizes"], ", ".join(f"{ratio:g}" for ratio in plan["aspect_ratios"])
    yield from _row("fitted anchors", f"{len(sizes)} of {sizes[0]:.0f} to {sizes[-1]:.0f} px; height / width {ratios}")
    numbers = f"zoom {plan['zoom']:g}, crop {plan['crop']:,}, overlap {plan['overlap']:,}"
    yield from _row("Plan", f"{numbers}, {plan['detections']:,} detections; data {found['digest']}")
    name, often = next(iter(found["most_shown"].items()))
    yield from _row("shown most often", f"{name}, {often:.1f} times the mean")


def _warnings(warnings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield several(len(warnings), "warning")
    for warning in warnings:
        yield from _row(f"  {warning['kind']}", warning["text"])


def listed_classes(counts: Mapping[str, int], most: int) -> list[str]:
    """All classes in their order, or the `most` with the most cells."""
    return list(counts) if len(counts) <= most else sorted(counts, key=lambda name: -counts[name])[:most]


def _row(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{name:{NAMES}}",
        subsequent_indent=" " * NAMES,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _range(numbers: Sequence[int]) -> str:
    least, _, most = numbers
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
