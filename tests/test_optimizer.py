import math

import pytest

from cellseg.model import build_model
from cellseg.optimizer import average_decay, optimizer_of, rate_factor


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (12, 0.5), (8, 0.5 + math.sqrt(0.125)), (20, 0.0)],
)
def test_the_rate_rises_linearly_and_falls_as_a_cosine(step, factor):
    assert rate_factor(step, total=20, warmup_fraction=0.2) == pytest.approx(factor)


def test_without_a_warm_up_the_rate_starts_at_its_peak():
    assert rate_factor(0, 10, 0.0) == 1.0
    assert rate_factor(0, 1, 0.05) == 1.0
    assert rate_factor(0, 1, 1.0) == 1.0


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (1, 2 / 11), (8, 0.5), (10_000, 0.99)])
def test_the_decay_of_the_average_is_ramped(step, decay):
    assert average_decay(step, 0.99) == pytest.approx(decay)


def test_an_average_that_is_off_follows_at_once():
    assert average_decay(5, 0.0) == 0


def test_weight_decay_falls_on_matrices_alone(run_config):
    model = build_model(run_config.model)
    decayed, free = optimizer_of(model, run_config.train).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert all(each.ndim > 1 for each in decayed["params"])
    assert all(each.ndim == 1 for each in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))
