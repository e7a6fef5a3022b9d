"""What `cellseg inspect` tells, as one figure: parts of images with their truth above, numbers below."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter, ScalarFormatter

from cellseg.anchors import sides_of
from cellseg.codes import Array
from cellseg.colors import COLORS
from cellseg.evaluate import CAP
from cellseg.inspection_table import listed_classes
from cellseg.plots import DPI, overlay
from cellseg.showcase import parts_of
from cellseg.survey import Survey
from cellseg.wording import several, short

PANELS = 4
ENLARGED = 640
"""pixels that a part of an image is enlarged to, about"""
OUTLINE = 3
"""width of outlines on a part of that size"""
CLASSES = 8
"""that are drawn, those with the most cells"""
LINES, COLUMNS = 16, 92
"""of the text"""
BINS = 20
LEGEND: dict[str, Any] = {"framealpha": 0.9, "edgecolor": "none"}
BAR, OTHER, EDGE, GROUND = "#3b75af", "#b4c7dc", "#404040", "#ececec"


def figure(seen: Survey, found: Mapping[str, Any], title: str) -> Figure:
    """The figure of a Survey and of what `inspection.inspect` tells of it."""
    drawn = Figure(figsize=(15, 11), dpi=DPI, layout="constrained")
    drawn.suptitle(
        f"{title}: {several(found['images'], 'image')}, {several(found['cells'], 'cell')}",
        fontsize=16,
        parse_math=False,
    )
    top, middle, bottom = drawn.subfigures(3, 1, squeeze=False, height_ratios=(4.4, 2.9, 3.3))[:, 0]
    _images(top, seen)
    classes = {name: seen.data.class_names.index(name) for name in listed_classes(found["cells_per_class"], CLASSES)}
    sizes, balance, crowding, density = middle.subplots(1, 4)
    _sizes(sizes, seen, classes)
    _balance(balance, found["cells_per_class"], classes)
    cells = np.array([len(boxes) for boxes in seen.found.boxes])
    _histogram(crowding, cells, "cells an image")
    crowding.axvline(CAP, color=EDGE, linestyle="--", label=f"{CAP} detections")
    crowding.legend(**LEGEND)
    _histogram(density, cells * 1e6 / np.prod(seen.found.sizes_hw, axis=1), "cells a megapixel")
    recall, ceiling, text = bottom.subplots(1, 3, width_ratios=(1, 1, 2.2))
    _recall(recall, found["best_possible_recall"])
    _ceiling(ceiling, found["ap_ceiling"], classes)
    _text(text, found)
    return drawn


def _images(place: SubFigure, seen: Survey) -> None:
    parts = parts_of(seen.found, PANELS)
    for axes, part in zip(place.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        image, label_maps = seen.data.part(part.index, part.rows, part.columns)
        side = max(image.shape[:2])
        scale = max(1, round(ENLARGED / side))
        axes.imshow(overlay(image, label_maps, scale=scale, width=max(1, round(scale * side / ENLARGED * OUTLINE))))
        rich = f"rich in {seen.data.class_names[part.label - 1]}" if part.label else "dense"
        axes.set_title(
            f"{short(seen.found.names[part.index], 40)}\n{rich}, {side} px across", fontsize=10, parse_math=False
        )
        axes.set_anchor("N")
        axes.set_axis_off()


def _sizes(axes: Axes, seen: Survey, classes: Mapping[str, int]) -> None:
    """From the 5th to the 95th percentile of each class a line, from the quarter to the three quarters a box."""
    sides, labels = sides_of(np.concatenate(seen.found.boxes)), np.concatenate(seen.found.labels)
    _rows(axes, classes, "side of a cell's box, px: 5, 25, 50, 75, 95 %")
    for row, index in enumerate(classes.values()):
        if not (labels == index + 1).any():
            continue
        least, quarter, median, most_of, most = np.percentile(sides[labels == index + 1], (5, 25, 50, 75, 95))
        axes.hlines(row, least, most, color=EDGE)
        axes.barh(row, most_of - quarter, left=quarter, height=0.5, color=_color(index), edgecolor=EDGE)
        axes.vlines(median, row - 0.25, row + 0.25, color="black", linewidth=2)
        axes.annotate(f" {median:.0f}", (most, row), va="center")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.margins(x=0.15)


def _balance(axes: Axes, counts: Mapping[str, int], classes: Mapping[str, int]) -> None:
    total = sum(counts.values())
    _rows(axes, classes, "share of the cells")
    for row, (name, index) in enumerate(classes.items()):
        axes.barh(row, counts[name] / total, height=0.6, color=_color(index), edgecolor=EDGE)
        axes.annotate(f" {counts[name]:,}", (counts[name] / total, row), va="center")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.margins(x=0.2)
    axes.set_xlim(left=0)


def _histogram(axes: Axes, numbers: Array, label: str) -> None:
    axes.hist(numbers, bins=np.linspace(0, numbers.max(), BINS + 1).tolist(), color=BAR, edgecolor="white")
    axes.axvline(float(np.median(numbers)), color="black", label=f"median {np.median(numbers):,.0f}")
    axes.set(xlabel=label, ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(**LEGEND)


def _recall(axes: Axes, recalls: Mapping[str, float]) -> None:
    bars = axes.bar(list(recalls), list(recalls.values()), color=[OTHER, OTHER, BAR], edgecolor=EDGE)
    axes.bar_label(bars, fmt="%.2f")
    axes.set(title="best possible recall of anchors", ylabel="cells met with an IoU of .7", ylim=(0, 1.12))


def _ceiling(axes: Axes, ceiling: Mapping[str, Any], classes: Mapping[str, int]) -> None:
    """A bar a class, and the means: also that of a network that keeps 100 detections of all classes."""
    mean, per_image = ceiling["100_per_class_and_image"], ceiling["100_per_image"]
    values = [*(ceiling["per_class"][name] for name in classes), mean, per_image]
    colors = [*map(_color, classes.values()), BAR, OTHER]
    _rows(axes, [*classes, "all", f"all, {CAP} an image"], "")
    bars = axes.barh(range(len(values)), [value or 0 for value in values], 0.6, color=colors, edgecolor=EDGE)
    axes.bar_label(bars, ["-" if value is None else f" {value:.2f}" for value in values])
    axes.set(title=f"AP ceiling, {CAP} detections a class", xlim=(0, 1.2))


def _rows(axes: Axes, names: Sequence[str] | Mapping[str, int], label: str) -> None:
    """A row a name, the first on top."""
    axes.set_yticks(range(len(names)), [short(name, 18) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.set_facecolor(GROUND)


def _text(axes: Axes, found: Mapping[str, Any]) -> None:
    """Channel order, Plan and warnings; where these are many, the beginning of each."""
    warnings, plan = found["warnings"], found["plan"]
    first = textwrap.wrap(f"channel order {found['channel_order_reason']}", COLUMNS)
    first += [f"Plan: zoom {plan['zoom']:g}, crop {plan['crop']:,}, {plan['detections']:,} detections", ""]
    first += [several(len(warnings), "warning")]
    broken = sum(warning["kind"] == "broken" for warning in warnings)
    texts = [f"broken: {several(broken, 'file')} (named in the table)"] if broken else []
    texts += [f"{warning['kind']}: {warning['text']}" for warning in warnings if warning["kind"] != "broken"]
    lines = [line for text in texts for line in textwrap.wrap(f"- {text}", COLUMNS, subsequent_indent="  ")]
    if len(first) + len(lines) > LINES:
        lines = [short(f"- {text}", COLUMNS) for text in texts][: LINES - len(first)]
    text = "\n".join(first + lines)
    axes.text(0, 1, text, va="top", fontsize=9.5, linespacing=1.4, in_layout=False, parse_math=False)
    axes.set_axis_off()


def _color(index: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*COLORS[index % len(COLORS)])
