"""The figures of a report, as SVG that takes the colours of a light or a dark page.

Letters: B bins.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cellseg.codes import Array
from cellseg.confusion import SizeBin

INK = "#0a0b0c"
"""stands for the colour of a page's text, and is no colour of a line"""
STYLE = "<style>svg{color:#24292f}@media(prefers-color-scheme:dark){svg{color:#d0d7de}}</style>"
THEME: Any = {  # a dict of the settings that matplotlib knows
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), "none"),
    "grid.color": INK,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $n$
    "svg.hashsalt": "cellseg",
}
SIZE = (5.2, 3.6)
"""inches"""
POINTS = 80
"""of a curve at most; more are averaged"""
FEW = 6
"""classes that get a line of their own"""
STYLES = ("-", "--", "-.", ":")


def svg(draw: Callable[..., Figure], *arguments: Any) -> bytes:
    """An SVG file of the figure that a function draws, the same for the same figure."""
    file = io.StringIO()
    with mpl.rc_context(THEME):
        draw(*arguments).savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue().replace(INK, "currentColor")
    return re.sub(r"(<svg [^>]*>)", rf"\1{STYLE}", text, count=1).encode()


def curves(series: Mapping[str, Mapping[int, float]], label: str, unit: str) -> Figure:
    """A line for each series of values by step or epoch; of many steps the means of a few."""
    figure, axes = _empty(xlabel=unit, ylabel=label)
    for (name, values), style in zip(series.items(), STYLES * len(series), strict=False):
        steps, means = thinned(values)
        axes.plot(steps, means, style, label=name, marker="." if len(steps) < 20 else "", linewidth=1.3)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def thinned(values: Mapping[int, float], most: int = POINTS) -> tuple[Array, Array]:
    """Steps and values; where there are more than `most`, the means of as many neighbours each as bring them under."""
    pairs = np.array([*values.items()], np.float64)  # (steps, 2)
    size = -(-len(pairs) // most)
    means = np.array([pairs[first : first + size].mean(axis=0) for first in range(0, len(pairs), size)])
    return means[:, 0], means[:, 1]


def class_bars(per_class: Mapping[str, Mapping[str, float]]) -> Figure:
    """AP50 of each class, at 100 detections an image and uncapped."""
    height = max(2.0, 0.8 + 0.5 * len(per_class))
    figure, axes = _empty((SIZE[0], height), xlabel="AP50", xlim=(0, 1))
    places = np.arange(len(per_class))
    for key, label, shift in (("AP50", "at 100", -0.2), ("AP50_uncapped", "uncapped", 0.2)):
        bars = axes.barh(places + shift, [each[key] for each in per_class.values()], 0.36, label=label)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set_yticks(places, [*per_class])
    axes.invert_yaxis()
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def recall_by_size(bins: Sequence[SizeBin], class_names: Sequence[str]) -> Figure:
    """Bars of the recall of all cells in each bin, whatever they were found as; a line for each of few classes."""
    figure, axes = _empty(xlabel="side of a cell in pixels; below it, how many cells", ylabel="recall", ylim=(0, 1.05))
    places = range(len(bins))
    axes.bar(
        places, [each.found.sum() / each.cells.sum() for each in bins], 0.8, alpha=0.35, color="gray", label="any class"
    )
    if len(class_names) <= FEW:
        for label, (name, style) in enumerate(zip(class_names, STYLES * FEW, strict=False)):
            filled = [place for place in places if bins[place].cells[label]]
            recalls = [bins[place].right[label] / bins[place].cells[label] for place in filled]
            axes.plot(filled, recalls, style, marker="o", markersize=4, label=name)
    axes.set_xticks(places, [f"{size_range(each)}\n{each.cells.sum():,}" for each in bins])
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def size_range(of: SizeBin) -> str:
    """Such as "8–12"."""
    return f"{of.low:.0f}+" if np.isinf(of.high) else f"{of.low:.0f}–{of.high:.0f}"


def reliability(rows: Array) -> Figure:
    """Precision over score (B, 3), as calibration.reliability has them, and below how many detections that is."""
    figure = Figure(figsize=(SIZE[0], 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], ":", color=INK, linewidth=1, label="a score that is the chance to be right")
    upper.plot(rows[:, 0], rows[:, 1], marker="o", label="these")
    upper.set(ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
    upper.legend(loc="upper left")
    lower.bar(np.floor(rows[:, 0] * 10) / 10 + 0.05, rows[:, 2], 0.09, color="gray", alpha=0.5)
    lower.set(xlabel="predicted score", ylabel="detections")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in (upper, lower):
        axes.grid(alpha=0.15)
    return figure


def _empty(size: tuple[float, float] = SIZE, **settings: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(**settings)
    axes.grid(alpha=0.15)
    axes.set_axisbelow(True)
    return figure, axes
