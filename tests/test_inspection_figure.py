from dataclasses import replace

import numpy as np
import pytest
from test_findings import grid, write

from cellseg.colors import COLORS
from cellseg.config import DatasetConfig
from cellseg.inspection import inspect
from cellseg.inspection_figure import COLUMNS, LINES, figure
from cellseg.plots import save
from cellseg.survey import survey


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The survey of two images: 4 cells of 6 pixels in each of three classes, and 120 of 4 pixels of the first."""
    root = tmp_path_factory.mktemp("scene")
    write(root, "few", grid(4, 4, 4, 0))
    write(root, "dense", grid(120, 0, 0, 0, side=4))
    seen = survey(root, DatasetConfig())
    return seen, inspect(seen)


@pytest.fixture(scope="module")
def drawn(scene):
    return figure(*scene, title="scene")


def axes_of(drawn, label):
    """The axes with that label or title."""
    (found,) = (axes for axes in drawn.axes if label in (axes.get_xlabel(), axes.get_title()))
    return found


def text_of(drawn):
    return drawn.axes[-1].texts[0].get_text()


def test_parts_of_images_are_shown_with_the_outlines_of_their_cells(drawn):
    pictures = [axes for axes in drawn.axes if axes.images]
    titles = [axes.get_title() for axes in pictures]
    assert len(pictures) == len(set(titles))
    assert titles[0] == "few\nrich in class2, 72 px across"
    shown = np.asarray(pictures[0].images[0].get_array())
    for color in COLORS[:3]:
        assert (shown == color).all(axis=2).any()
    assert not (shown == COLORS[3]).all(axis=2).any()


def test_sizes_have_a_row_a_class_from_the_first_down(drawn):
    axes = axes_of(drawn, "side of a cell's box, px: 5, 25, 50, 75, 95 %")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["class1", "class2", "class3", "class4"]
    assert axes.yaxis_inverted()
    assert [text.get_text().strip() for text in axes.texts] == ["4", "6", "6"]  # medians; class 4 has no cell


def test_the_balance_is_the_share_of_each_class(drawn):
    bars = axes_of(drawn, "share of the cells").patches
    assert [bar.get_width() for bar in bars] == pytest.approx([124 / 132, 4 / 132, 4 / 132, 0])


def test_each_image_is_in_the_histograms_of_cells_and_density(drawn):
    for label, numbers in (("cells an image", (12, 120)), ("cells a megapixel", (12e6 / 7200, 120e6 / 7200))):
        bars = axes_of(drawn, label).patches
        holding = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars if bar.get_height()]
        for number, (low, high) in zip(numbers, holding, strict=True):
            assert 0.999 * low <= number <= 1.001 * high  # 12 of 120 lie on an edge of 20 bars


def test_the_three_sets_of_anchors_are_compared(drawn, scene):
    axes = axes_of(drawn, "best possible recall of anchors")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["torchvision", "reference", "fitted"]
    assert [bar.get_height() for bar in axes.patches] == list(scene[1]["best_possible_recall"].values())


def test_the_ceiling_has_a_bar_a_class_and_both_means(drawn, scene):
    axes = axes_of(drawn, "AP ceiling, 100 detections a class")
    # 100 + 4 of 124 cells of class 1 count, which reach recalls of 0 to .83
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(
        [84 / 101, 1, 1, 0, (84 / 101 + 2) / 3, scene[1]["ap_ceiling"]["100_per_image"]]
    )
    assert [text.get_text().strip() for text in axes.texts] == ["0.83", "1.00", "1.00", "-", "0.94", "0.94"]


def test_channel_order_and_warnings_are_told(drawn):
    text = text_of(drawn)
    assert text.startswith("channel order rgb: nuclei stand out more in the first channel")
    assert "3 warnings" in text
    assert "- rare: fewer than 10 cells of a class" in text


def test_many_warnings_stay_within_their_place(scene):
    seen, found = scene
    warnings = [{"kind": "caps", "text": f"{number} " + "word " * 90, "names": []} for number in range(30)]
    broken = [{"kind": "broken", "text": "file.tif: empty", "names": []}] * 7
    lines = text_of(figure(seen, {**found, "warnings": broken + warnings}, "scene")).splitlines()
    assert len(lines) == LINES
    assert max(map(len, lines)) <= COLUMNS
    assert "37 warnings" in lines
    assert "- broken: 7 files (named in the table)" in lines
    assert lines[-1].endswith("…")


def test_names_are_no_formulas(scene, tmp_path):
    seen, found = scene
    names = tuple(f"$a^{{{name}" for name in seen.found.names)
    odd = replace(seen, found=replace(seen.found, names=names))
    save(figure(odd, found, "$b_{"), tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 10_000
