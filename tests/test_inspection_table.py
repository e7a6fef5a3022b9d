import pytest

from cellseg.inspection_table import WIDTH, listed_classes, table


def found(**changes):
    """What `inspect` tells of 26 images."""
    return {
        "images": 26,
        "test_images": 9,
        "height": [271, 468, 1000],
        "width": [1000, 1000, 1000],
        "cells": 12050,
        "cells_per_image": [0, 84, 1991],
        "cells_per_megapixel": [0, 530, 2437],
        "cells_per_class": {"stroma": 50, "tumour": 12000, "other": 0},
        "images_per_class": {"stroma": 2, "tumour": 25, "other": 0},
        "cell_sides": {"stroma": [5.2, 10.6, 27.0], "tumour": [10.0, 16.0, 22.0], "other": None},
        "channel_order_reason": "bgr: nuclei stand out more in the third channel than in the first, by 0.35 in optical "
        "density (median), in 26 of 26 images that tell",
        "digest": "d1gest",
        "best_possible_recall": {"torchvision": 0.38, "reference": 0.013, "fitted": 0.893},
        "ap_ceiling": {
            "100_per_class_and_image": 0.615,
            "100_per_image": 0.505,
            "per_class": {"stroma": 1.0, "tumour": 0.23, "other": None},
        },
        "most_shown": {"a": 1.84, "b": 1.2},
        "plan": {
            "zoom": 1.58,
            "crop": 512,
            "overlap": 192,
            "detections": 1486,
            "anchor_sizes": [16.6, 20.0, 377.52],
            "aspect_ratios": [0.556, 1.0],
        },
        "warnings": [{"kind": "caps", "text": "11 of 26 images with more than 100 cells", "names": []}],
        **changes,
    }


def lines(**changes):
    return table(found(**changes)).splitlines()


def row(name, **changes):
    (line,) = (line for line in lines(**changes) if line.startswith(name + " "))
    return line[len(name) :].strip()


def test_numbers_have_separators_and_say_what_they_count():
    assert row("images") == "26, and 9 to be predicted"
    assert row("images", test_images=None) == "26"
    assert row("height x width") == "271 to 1,000 x 1,000 px, median 468 x 1,000"
    assert row("cells") == "12,050; 0 to 1,991 an image, median 84"
    assert row("density") == "0 to 2,437 cells a megapixel, median 530"
    assert row("Plan") == "zoom 1.58, crop 512, overlap 192, 1,486 detections; data d1gest"
    assert row("fitted anchors") == "3 of 17 to 378 px; height / width 0.556, 1"
    assert row("shown most often") == "a, 1.8 times the mean"


def test_each_class_has_a_row_of_aligned_columns():
    start = lines().index(next(line for line in lines() if line.startswith("class ")))
    rows = lines()[start : start + 5]
    assert [line.split() for line in rows[1:]] == [
        ["stroma", "50", "0.4%", "2", "5", "11", "27", "1.000"],
        ["tumour", "12,000", "99.6%", "25", "10", "16", "22", "0.230"],
        ["other", "0", "0.0%", "0", "-", "-", "-", "-"],
        ["all", "12,050", "26", "0.615"],
    ]
    assert len({len(line) for line in rows}) == 1
    column = rows[0].index("cells") + len("cells")
    assert [line[:column].split()[-1] for line in rows[1:]] == ["50", "12,000", "0", "12,050"]


def test_of_many_classes_those_with_the_most_cells_are_listed():
    names = [f"kind{number}" for number in range(15)]
    counts = {name: number for number, name in enumerate(names)}
    assert listed_classes(counts, 3) == ["kind14", "kind13", "kind12"]
    assert listed_classes(counts, 15) == names
    shown = lines(
        cells_per_class=counts,
        images_per_class=counts,
        cell_sides={name: [1.0, 2.0, 3.0] for name in names},
        ap_ceiling={"100_per_class_and_image": 1, "100_per_image": 1, "per_class": dict.fromkeys(names, 1.0)},
    )
    assert sum(line.startswith("kind") for line in shown) == 12
    assert "… and 3 classes with fewer cells" in shown


def test_long_lines_are_wrapped_under_their_beginning():
    long = {"kind": "broken", "text": " ".join(["word"] * 60), "names": []}
    shown = lines(warnings=[long])
    assert max(map(len, shown)) <= WIDTH
    place = next(n for n, line in enumerate(shown) if line.startswith("  broken"))
    assert shown[place].index("word") == shown[place + 1].index("word")
    assert " ".join(" ".join(shown[place:]).split()) == f"broken {long['text']}"


def test_a_path_is_never_cut():
    path = "/data/" + "very-long-name/" * 12 + "image.tif:"
    text = table(found(warnings=[{"kind": "broken", "text": f"{path} an empty file", "names": []}]))
    assert path in text


@pytest.mark.parametrize(("count", "expected"), [(0, "0 warnings"), (1, "1 warning"), (2, "2 warnings")])
def test_the_warnings_are_counted(count, expected):
    assert expected in lines(warnings=found()["warnings"] * count)


def test_all_of_it_fits_a_screen():
    assert len(lines()) <= 24
