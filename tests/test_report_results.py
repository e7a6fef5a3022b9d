import re
from dataclasses import replace

import pytest
from reports import Read, found_again, unseen_of

from cellseg import report_results as results


@pytest.fixture(scope="module")
def unseen(data):
    """All but two of the 32 cells found; three as class 2: two of class 1, and one of class 2."""
    return unseen_of(data, found_again(data.truth(), missed=2, relabelled=3))


def rows(html):
    """The texts of the cells of its tables, row by row."""
    lines = re.findall(r"<tr>(.*?)</tr>", html)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", line)] for line in lines]


def test_the_figures_of_all_classes_are_those_of_the_scores(unseen):
    shown = Read(results.glance(unseen)).texts["strong"]
    assert shown == [f"{unseen.scores.metrics[name]:.3f}" for name in ("AP50", "AP", "AP75", "PQ", "AJI", "F1")]
    assert "those that score 0.50 or more" in results.glance(unseen)


def test_each_class_has_its_figures_at_100_and_uncapped_and_the_mean_stands_last(unseen):
    head, *body, mean = rows(results.classes(unseen))
    assert head == [
        *("class", "cells", "AP50", "AP", "AP75"),
        *("AP50 uncapped", "AP uncapped", "AP75 uncapped", "PQ", "F1"),
    ]
    assert [line[0] for line in body] == ["class1", "class2", "class3", "class4"]
    assert [int(line[1]) for line in body] == unseen.data.cell_counts.sum(axis=0).tolist()
    own = unseen.scores.per_class["class2"]
    assert body[1][2:4] == [f"{own['AP50']:.3f}", f"{own['AP']:.3f}"]
    assert mean[:3] == ["mean", "32", f"{unseen.scores.metrics['AP50']:.3f}"]


def test_a_class_that_the_images_lack_has_no_figures(data):
    """The first image has classes 1 and 2 alone."""
    only = unseen_of(data, found_again(data.truth([0])), indices=(0,))
    assert rows(results.classes(only))[3] == ["class3", "0", *["–"] * 8]
    assert rows(results.classes(only))[1][2] == "1.000"


def test_the_confusion_counts_cells_and_gives_shares_of_a_row(unseen):
    assert rows(results.confusion(unseen)) == [
        ["", "class1", "class2", "class3", "class4", "missed", "in all"],
        ["class1", "11 73%", "2 13%", "0", "0", "2 13%", "15"],
        ["class2", "0", "15 100%", "0", "0", "0", "15"],
        ["class3", "0", "0", "1 100%", "0", "0", "1"],
        ["class4", "0", "0", "0", "1 100%", "0", "1"],
        ["no cell", "0", "0", "0", "0", "–", "0"],
    ]


def test_recall_is_told_by_size_for_all_and_each_class(unseen):
    """All squares have a side of 12 pixels."""
    assert rows(results.sizes(unseen)) == [
        ["side", "cells", "found", "own class", "class1", "class2", "class3", "class4"],
        ["12–16", "32", "0.94", "0.88", "0.73", "1.00", "1.00", "1.00"],
    ]


def test_many_classes_get_no_columns_of_their_own(unseen):
    many = replace(unseen.data, class_names=tuple(f"class{label}" for label in range(1, 8)))
    assert rows(results.sizes(replace(unseen, data=many)))[0] == ["side", "cells", "found", "own class"]


def test_scores_are_set_against_precision(unseen):
    """Ten scores each from .6, .7 and .8 on; of the first ten, two are of another class."""
    _, *body = rows(results.reliability(unseen))
    assert [line[1:] for line in body] == [["0.80", "10"], ["1.00", "10"], ["1.00", "10"]]
    gap = ((0.8 - 0.645) + (1 - 0.745) + (1 - 0.845)) / 3
    assert f"Score and precision are {gap:.3f} apart in the mean over 30 detections" in results.reliability(unseen)


def test_without_detections_or_cells_it_is_said(data):
    nothing = unseen_of(data, [])
    assert "Nothing was detected" in results.reliability(nothing)
    assert rows(results.confusion(nothing))[1][5].endswith("100%")
    fields = ("truth_labels", "truth_sides", "found_as", "ious")
    without = [replace(each, **{name: getattr(each, name)[:0] for name in fields}) for each in nothing.images]
    no_cells = replace(nothing, images=without)
    assert "No cell is annotated" in results.sizes(no_cells)


def test_images_are_shown_once_each_with_truth_and_prediction_the_best_first(unseen):
    """The first image lacks two cells and has some of another class, the others are found whole."""
    read = Read(results.images(unseen))
    assert read.texts["h3"] == ["All 4, best first"]
    assert [text.split(" PQ ")[0] for text in read.texts["figcaption"]] == ["image1", "image2", "image3", "image0"]
    assert read.texts["figcaption"][0] == "image1 PQ 1.000: of 8 cells 8 found, 0 as another class, 0 missed; 0 false"
    assert [each["alt"] for each in read.pictures[:2]] == ["image1, truth: 8 cells", "image1, prediction: 8 cells"]
    assert len(read.pictures) == 8


def test_of_many_images_the_best_and_the_worst_are_shown(unseen, monkeypatch):
    monkeypatch.setattr(results, "SHOWN", 1)
    monkeypatch.setattr(results, "best_and_worst", lambda values: ([1], [0]))
    read = Read(results.images(unseen))
    assert read.texts["h3"] == ["The 1 best", "The 1 worst, worst first"]
    assert [text.split(" PQ ")[0] for text in read.texts["figcaption"]] == ["image1", "image0"]


def test_the_part_of_a_large_image_that_is_shown_is_named(unseen, monkeypatch):
    monkeypatch.setattr(results, "WINDOW", 79)
    assert "; rows 0 to 72 and columns 0 to 80 are shown" in results.images(unseen)
