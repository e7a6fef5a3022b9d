import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cellseg import report_plots as plots
from cellseg.confusion import SizeBin
from cellseg.plots import precision_recall

PER_CLASS = {"<b>": {"AP50": 0.5, "AP50_uncapped": 0.75}, "two": {"AP50": 0.0, "AP50_uncapped": 0.0}}
BINS = [
    SizeBin(8.0, 12.0, np.array([4, 0]), np.array([3, 0]), np.array([2, 0])),
    SizeBin(128.0, np.inf, np.array([1, 1]), np.array([1, 1]), np.array([1, 0])),
]
ROWS = np.array([[0.05, 0.0, 10.0], [0.95, 0.8, 5.0]])
FIGURES = {
    "curves": (plots.curves, {"all": {1: 2.0, 2: 1.0}}, "loss", "step"),
    "one point": (plots.curves, {"all": {1: 2.0}}, "loss", "step"),
    "bars": (plots.class_bars, PER_CLASS),
    "no class": (plots.class_bars, {}),
    "sizes": (plots.recall_by_size, BINS, ["<b>", "two"]),
    "reliability": (plots.reliability, ROWS),
    "precision": (precision_recall, {"$n": {"recall": [0.0, 1.0], "precision": [1.0, 0.5]}}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_an_svg_that_takes_the_colour_of_its_page_and_is_the_same_each_time(name):
    found = plots.svg(*FIGURES[name])
    assert ET.fromstring(found).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"currentColor" in found
    assert plots.INK.encode() not in found
    assert b"prefers-color-scheme:dark" in found
    assert plots.svg(*FIGURES[name]) == found


def test_texts_stay_texts_whatever_a_class_is_called():
    texts = {
        "".join(each.itertext()) for each in ET.fromstring(plots.svg(*FIGURES["bars"])).iter() if "text" in each.tag
    }
    assert {"<b>", "two", "at 100", "uncapped", "0.750"} <= texts
    strange = {"$a^{": PER_CLASS["two"], "$$": PER_CLASS["two"]}
    assert b"$a^{" in plots.svg(plots.class_bars, strange)


def test_many_points_become_the_means_of_neighbours():
    steps, means = plots.thinned({step: float(step) for step in range(1, 11)}, most=4)
    assert steps.tolist() == means.tolist() == [2.0, 5.0, 8.0, 10.0]
    steps, means = plots.thinned({5: 1.0, 7: 2.0}, most=2)
    assert (steps.tolist(), means.tolist()) == ([5.0, 7.0], [1.0, 2.0])


def test_a_curve_is_drawn_over_its_steps():
    axes = plots.curves({"AP50": {2: 0.25, 4: 0.5}}, "average precision", "epoch").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "average precision")
    assert axes.lines[0].get_xydata().tolist() == [[2.0, 0.25], [4.0, 0.5]]


def test_bars_are_recall_of_any_class_and_lines_that_of_a_class_where_it_has_cells():
    axes = plots.recall_by_size(BINS, ["one", "two"]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.75, 1.0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 0.5], [1, 1.0]], [[1, 0.0]]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8–12\n4", "128+\n2"]


def test_many_classes_get_no_lines():
    bins = [SizeBin(8.0, 12.0, *(np.ones((3, 7), np.int64)))]
    assert not plots.recall_by_size(bins, [f"class{n}" for n in range(7)]).axes[0].lines


def test_precision_is_drawn_over_the_mean_score_and_counts_in_their_bin():
    upper, lower = plots.reliability(ROWS).axes
    assert upper.lines[1].get_xydata().tolist() == [[0.05, 0.0], [0.95, 0.8]]
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in lower.patches] == [
        (pytest.approx(0.05), 10.0),
        (pytest.approx(0.95), 5.0),
    ]
