"""Label maps and results -> pictures: outlines on images, and matplotlib figures without windows or global state.

Letters: C classes, H height, W width.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cellseg.codes import Array
from cellseg.colors import COLORS, Color
from cellseg.label_maps import paint
from cellseg.whole_files import whole

DPI = 100
PANEL = 800
"""side in pixels that the pictures of a triptych are enlarged to, about"""
OUTLINE = 3
"""width of outlines on a picture of that side"""
FONT = 26


def overlay(image: Array, label_maps: Array, colors: Sequence[Color] = COLORS, scale: int = 1, width: int = 1) -> Array:
    """The image (H, W, 3) uint8, enlarged `scale` times, with the outline of each cell in the colour of its class.

    An outline is the outermost `width` pixels of a cell of label_maps (C, H, W), so that touching cells stay apart.
    Colours start again where there are more classes.
    """
    picture = _enlarged(image, scale)
    for label_map, color in zip(label_maps, cycle(colors), strict=False):
        inner = label_map.repeat(scale, axis=0).repeat(scale, axis=1)
        for _ in range(width):
            edges = _edges(inner)
            picture[edges] = color
            inner[edges] = 0
    return picture


def results_overlay(
    image: Array, results: Sequence[Mapping[str, Any]], num_cell_classes: int, threshold: float, scale: int = 1
) -> Array:
    """The image (H, W, 3) uint8 with the outlines of its COCO results that score at least the threshold.

    Where cells overlap the highest score wins the pixel, whatever the class, and the earlier result a tie.
    """
    return overlay(image, drawn(results, num_cell_classes, threshold, image.shape[:2]), scale=scale)


def drawn(
    results: Sequence[Mapping[str, Any]], num_cell_classes: int, threshold: float, size_hw: tuple[int, int]
) -> Array:
    """Label maps (C, H, W) of the results of one image that score at least the threshold; each pixel has one cell."""
    kept = sorted(results, key=lambda result: -result["score"])
    kept = [result for result in reversed(kept) if result["score"] >= threshold]
    label_maps = paint(
        [result["segmentation"] for result in kept],
        [result["category_id"] for result in kept],
        num_cell_classes,
        size_hw,
    )
    label_maps[label_maps < label_maps.max(axis=0)] = 0  # later cells, of any class, have higher ids
    return label_maps


def triptych(image: Array, truth_label_maps: Array, predicted_label_maps: Array, class_names: Sequence[str]) -> Figure:
    """A figure of an image, its truth and its prediction side by side, and below them the colours of the classes."""
    scale = max(1, round(PANEL / max(image.shape[:2])))
    height, width = (scale * side for side in image.shape[:2])
    outline = max(1, round(max(height, width) / PANEL * OUTLINE))
    pictures = {
        "image": _enlarged(image, scale),
        "truth": overlay(image, truth_label_maps, scale=scale, width=outline),
        "prediction": overlay(image, predicted_label_maps, scale=scale, width=outline),
    }
    size = (3 * width / DPI + 0.4, height / DPI + 1.5)  # inches; a pixel of a picture is one of the figure
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, 3), pictures.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(title, fontsize=FONT)
        axes.set_axis_off()
    patches = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor="gray", label=name)
        for name, color in zip(class_names, cycle(COLORS), strict=False)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=max(1, len(patches)), fontsize=FONT, frameon=False)
    return figure


def precision_recall(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A figure with a line per class: precision over recall at an IoU of .5."""
    figure = Figure(figsize=(6, 5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for (name, curve), style in zip(curves.items(), cycle(("-", "--", "-.", ":")), strict=False):
        axes.plot(curve["recall"], curve["precision"], style, label=name)
    axes.set(xlabel="recall", ylabel="precision", title="IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        figure.savefig(partial, format="png")


def _enlarged(image: Array, scale: int) -> Array:
    """A copy of the image (H, W, 3), `scale` times as high and wide."""
    enlarged: Array = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return enlarged


def _edges(label_map: Array) -> Array:
    """The pixels (H, W) bool of cells beside a pixel, above, below, left or right, that is not of the same cell."""
    padded = np.pad(label_map, 1)
    neighbors = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edges: Array = (label_map > 0) & np.logical_or.reduce([neighbor != label_map for neighbor in neighbors])
    return edges
