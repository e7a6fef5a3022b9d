from dataclasses import fields, replace

import pytest

from cellseg.config import RunConfig
from cellseg.config_fields import replaced
from cellseg.config_ranges import ABOVE_0, AT_LEAST, SHARES

GROUPS = ("dataset", "augment", "model", "train", "predict")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train.batch", 0, "at least 1, got 0"),
        ("train.batch", -1, "at least 1, got -1"),
        ("train.learning_rate", 0.0, "more than 0, got 0"),
        ("train.learning_rate", float("nan"), "more than 0, got nan"),
        ("train.ema_decay", 2.0, "a share from 0 to 1, got 2"),
        ("augment.crop", -5, "at least 0, got -5"),
        ("augment.zoom_jitter", 0.5, "at least 1, got 0.5"),
        ("model.anchor_sizes", (8.0, -1.0), "more than 0, got -1"),
        ("model.mask_channels", (8, 0), "at least 1, got 0"),
        ("predict.zoom", -1.0, "more than 0, got -1"),
        ("predict.score_threshold", 7.0, "a share from 0 to 1, got 7"),
        ("predict.zooms", (1.0, 0.0), "more than 0, got 0"),
        ("seed", -1, "at least 0, got -1"),
        ("dataset.split_seed", -1, "at least 0, got -1"),
        ("dataset.workers", -1, "at least 0, got -1"),
        ("dataset.mpp", 0.0, "more than 0, got 0"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line(name, value, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        replaced(RunConfig(), {name: value})
    assert str(caught.value) == f"{name}: expected {expected}"


def test_every_range_is_of_a_field_that_has_no_other():
    names = ["seed", *(f"{group}.{each.name}" for group in GROUPS for each in fields(getattr(RunConfig(), group)))]
    ranges = [*AT_LEAST, *ABOVE_0, *SHARES]
    assert set(ranges) <= set(names)
    assert len(set(ranges)) == len(ranges)


def test_a_field_that_the_plan_fills_may_be_none():
    assert replace(RunConfig().model, anchor_sizes=None).anchor_sizes is None
    assert replace(RunConfig().predict, zoom=None, detections=None).zoom is None
