import pytest
from ingredients import INGREDIENTS, OFF, SHARED, changes_of, config_of

from cellseg.config_fields import flat, replaced
from cellseg.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_all_recipes_hold_back_the_same_images(name):
    fields = flat(config_of(name))
    assert {field: fields[field] for field in SHARED} == SHARED


def test_a_plus_adds_and_a_minus_takes_away_in_any_number():
    config = config_of("demo+mask56-ema+roi128-oversample")
    assert (config.model.mask_size, config.model.roi_batch) == (56, 128)
    assert (config.train.ema_decay, config.train.oversample) == (0.0, False)
    assert config.train.learning_rate == config_of("demo").train.learning_rate


def test_the_changes_of_a_name_are_told_by_their_fields():
    assert changes_of("demo") == {}
    assert changes_of("demo+mask56-ema+mask56") == {"model.mask_size": 56, "train.ema_decay": 0.0}


@pytest.mark.parametrize("change", [*(f"+{name}" for name in INGREDIENTS), *(f"-{name}" for name in OFF)])
def test_every_change_is_of_fields_that_there_are_and_changes_one_of_the_best_or_the_demo(change):
    assert any(config_of(name + change) != config_of(name) for name in ("best", "demo"))


def test_a_name_with_a_hyphen_is_one_name(monkeypatch):
    monkeypatch.setitem(RECIPES, "demo-fast", lambda: replaced(RECIPES["demo"](), {"train.batch": 1}))
    monkeypatch.setitem(INGREDIENTS, "copy", {"train.batch": 3})
    monkeypatch.setitem(INGREDIENTS, "copy-ema", {"train.batch": 4})
    assert config_of("demo-fast").train.batch == 1
    assert config_of("demo-fast+copy-ema").train.batch == 4
    assert config_of("demo-fast+copy-ema").train.ema_decay > 0


@pytest.mark.parametrize("name", ["", "nothing", "demo+", "demo+nothing", "demo-mask56", "+ema", "demo+mask56ema"])
def test_another_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(ValueError, match=r"expected one of demo, .*\+mask56.*-ema"):
        config_of(name)
