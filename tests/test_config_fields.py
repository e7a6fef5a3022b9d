import json

import pytest

from cellseg.config import RunConfig, TrainConfig
from cellseg.config_fields import flat, from_dict, replaced, to_dict
from cellseg.recipes import RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_survives_json(recipe):
    config = RECIPES[recipe]()
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert config.recipe == recipe


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"config\.train: unknown field learning_rat"):
        from_dict(RunConfig, {"train": {"learning_rat": 1}})


@pytest.mark.parametrize(
    "values", [{"epochs": "many"}, {"epochs": 1.5}, {"optimizer": "lion"}, {"amp": 1}, {"learning_rate": None}]
)
def test_a_value_of_the_wrong_type_is_refused(values):
    with pytest.raises(ValueError, match=rf"config\.{next(iter(values))}: expected"):
        from_dict(TrainConfig, values)


def test_dotted_fields_are_replaced():
    config = replaced(RunConfig(), {"train.learning_rate": 1, "model.anchor_sizes": [4, 8]})
    assert config.train.learning_rate == 1.0
    assert config.model.anchor_sizes == (4.0, 8.0)
    assert flat(config)["train.learning_rate"] == 1.0


@pytest.mark.parametrize("name", ["train.rate", "trian.epochs", "nothing"])
def test_a_dotted_name_that_is_no_field_is_refused(name):
    with pytest.raises(ValueError, match="unknown field"):
        replaced(RunConfig(), {name: 1})


def test_a_calibration_survives_json_and_is_short_in_a_log():
    rows = ((1.25, -0.5, 0.03125, 0.0), (1.0, 0.0, 0.0, 0.0))
    config = replaced(RunConfig(), {"predict.calibration": [list(row) for row in rows]})
    assert config.predict.calibration == rows
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert len(str(flat(config)["predict.calibration"])) < 100
