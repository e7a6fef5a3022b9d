from dataclasses import replace

import pytest
from accuracy_table import METRICS, difference, ratio, report, short, span
from test_records import RECORD


def record(recipe, seed, value, **fields):
    metrics = dict.fromkeys(METRICS, value)
    return replace(RECORD, recipe=recipe, seed=seed, metrics=metrics, per_class={"class1": {"AP50": value}}, **fields)


RECORDS = [
    record("reference", 0, 0.02),
    record("reference", 1, 0.04),
    record("torchvision", 0, 0.1),
    record("torchvision", 1, 0.2),
    record("demo", 1, 0.3, steps=20, seconds=5.0),
    record("demo", 0, 0.18, steps=20, seconds=15.0),
]


def rows_of(text, name):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {name} |")
    ]


def test_a_row_has_mean_and_range_over_the_seeds():
    figures, classes, _ = rows_of(report(RECORDS), "demo")
    assert figures[:4] == ["demo", "0, 1", "0.0 M", "20"]
    assert figures[4:] == [".240 (.180 to .300)"] * 5
    assert classes == ["demo", ".240 (.180 to .300)"]


def test_rows_are_compared_with_torchvision_and_the_reference():
    *_, compared = rows_of(report(RECORDS), "demo")
    # .24 - .15, and .18 lies below torchvision's .2; .24 / .03, above all of the reference's
    assert compared[1:] == ["+.090, within the seeds' range"] * 3 + ["8.00 x"] * 3


def test_without_an_opponent_nothing_is_compared():
    assert "against" not in report([RECORDS[-1]])


def test_budgets_and_devices_have_tables_of_their_own():
    text = report([*RECORDS, record("demo", 0, 0.5, budget="60 min"), record("demo", 0, 0.6, device="gpu")])
    headings = [line for line in text.splitlines() if "of training" in line]
    assert [line.split(" of training")[0] for line in headings] == ["15 min", "60 min", "15 min"]
    assert headings[-1].endswith("on gpu, split 0")
    assert rows_of(text, "demo")[-2][5] == ".600 (.600 to .600)"


def test_configs_of_a_recipe_have_rows_of_their_own_and_the_last_one_has_the_plain_name():
    newer = record("demo", 2, 0.5, config="c2")
    text = report([*RECORDS, newer])
    figures, _, compared = rows_of(text, "demo")
    assert (figures[1], figures[4]) == ("2", ".500 (.500 to .500)")
    assert compared[1] == "+.350"  # against torchvision's .15
    older, _, compared = rows_of(text, "demo (config c1)")
    assert (older[1], older[4]) == ("0, 1", ".240 (.180 to .300)")
    assert compared[1].startswith("+.090")


def test_rows_are_compared_with_the_last_config_of_an_opponent():
    text = report([*RECORDS, record("torchvision", 2, 0.24, config="c2")], ["torchvision", "demo"])
    *_, compared = rows_of(text, "demo")
    assert compared[1] == "+.000, within the seeds' range"
    assert len(rows_of(text, "torchvision (config c1)")) == 2  # its figures and classes alone


def test_opponents_with_a_backbone_of_their_name_are_opponents():
    named = [record("torchvision-resnet101", 0, 0.1), record("reference-resnet101", 0, 0.05)]
    text = report([*named, record("best+scratch", 0, 0.3), record("torchvision-slim", 0, 0.2)])
    *_, compared = rows_of(text, "best+scratch")
    assert compared[1:] == ["+.200"] * 3 + ["6.00 x"] * 3
    assert "AP50 against torchvision-resnet101 | " in text
    assert [len(rows_of(text, each.recipe)) for each in named] == [2, 2]  # figures and classes alone
    assert len(rows_of(text, "torchvision-slim")) == 3


def test_named_recipes_alone_are_shown_in_their_order():
    text = report(RECORDS, ["torchvision", "reference", "missing"])
    assert not rows_of(text, "demo")
    assert text.index("| torchvision |") < text.index("| reference |")


def test_without_records_it_says_so():
    assert report([]) == report(RECORDS, ["missing"]) == "no finished training"


def test_a_lower_mean_has_a_minus_and_nothing_is_a_multiple_of_zero():
    low, high, none = span([0.1, 0.2]), span([0.4]), span([0.0])
    assert difference(low, high) == "-.250"
    assert ratio(low, none) == ".150 against 0"
    assert ratio(none, none) == ".000 against 0, within the seeds' range"


@pytest.mark.parametrize(("value", "text"), [(0.0, ".000"), (1.0, "1.000"), (-0.25, "-.250"), (0.9996, "1.000")])
def test_three_digits(value, text):
    assert short(value) == text
