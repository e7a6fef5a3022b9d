"""Rows of one claim -> a figure: time and peak memory against size, both axes logarithmic, ours and theirs."""

from collections.abc import Callable, Sequence

from claims import CLAIMS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from rows import Row, shown

DPI = 110
OURS, THEIRS = "#0b6e99", "#c8553d"
MARKERS = "osD^"
Figures = Callable[[Row], float | None]


def chart(rows: Sequence[Row]) -> Figure:
    """A panel for seconds and one for MB, a line for each side and variant."""
    claim = CLAIMS[rows[0].claim]
    figure = Figure(figsize=(9, 4.6), dpi=DPI, layout="constrained")
    time, memory = figure.subplots(1, 2)
    _panel(time, rows, "seconds", lambda row: row.ours_s, lambda row: row.theirs_s)
    _panel(memory, rows, "MB at the peak", lambda row: row.ours_mb, lambda row: row.theirs_mb)
    for axes in (time, memory):
        axes.set_xlabel(claim.unit)
    figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"{rows[0].claim}: {claim.title}\nagainst {claim.theirs}", fontsize=11)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], title: str, ours: Figures, theirs: Figures) -> None:
    """The lines of one figure; sizes are ticked as they were measured."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    for variant, marker in zip(variants, MARKERS, strict=False):
        for name, color, figure_of in (("ours", OURS, ours), ("theirs", THEIRS, theirs)):
            points = [(row.size, value) for row in rows if row.variant == variant and (value := figure_of(row))]
            label = f"{name}, {variant}" if variant else name
            style = "-" if variant == variants[0] else "--"
            if points:
                axes.plot(*zip(*points, strict=True), style, color=color, marker=marker, label=label)
    sizes = sorted({row.size for row in rows})
    axes.set_xscale("log" if sizes[0] > 0 else "symlog")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [shown(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
