"""What a study searches, and which trials come first."""

import dataclasses

import numpy as np
import optuna
import pytest
import space

from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS
from cellseg.config_fields import replaced
from cellseg.experiment import prepare
from cellseg.fingerprint import fingerprint
from cellseg.recipes import REFERENCE_ANCHORS, REFERENCE_RATIOS

CARD = {"anchor_base", "anchor_scale", "anchors_per_level", "ratio_max", "learning_rate", "warmup_fraction"}
WIDE = CARD | {"optimizer", "learning_rate_sgd", "weight_decay", "zoom", "rpn_nms", "box_nms", "roi_positive_fraction"}


def suggested(prepared, kind, **parameters):
    """The fields of a trial with these parameters, the others from a first trial."""
    (first, *_) = space.first_trials(prepared.config, prepared.plan, kind)
    trial = optuna.trial.FixedTrial({**first.parameters, **parameters})
    return space.suggest(trial, prepared.config, prepared.plan, kind)


def test_the_card_searches_anchors_learning_rate_and_warm_up_and_wide_the_rest_too(prepared):
    assert set(space.parameters_of(prepared.config, prepared.plan, "card")) == CARD
    assert set(space.parameters_of(prepared.config, prepared.plan, "wide")) == WIDE


def test_the_first_trials_are_the_fitted_the_default_and_the_reference_anchors(prepared):
    fitted, torchvision, reference = space.first_trials(prepared.config, prepared.plan, "card")
    assert (fitted.anchor_sizes, fitted.aspect_ratios) == (prepared.plan.anchor_sizes, prepared.plan.aspect_ratios)
    assert (torchvision.anchor_sizes, torchvision.aspect_ratios) == (TORCHVISION_ANCHORS[:3], TORCHVISION_RATIOS)
    assert (reference.anchor_sizes, reference.aspect_ratios) == (REFERENCE_ANCHORS[:3], REFERENCE_RATIOS)


def test_the_space_lies_around_fitted_anchors_and_a_config_with_others_has_these_tried_as_well(prepared):
    model = dataclasses.replace(prepared.config.model, anchor_sizes=REFERENCE_ANCHORS[:3], aspect_ratios=(0.5, 1.0))
    own = prepare(dataclasses.replace(prepared.config, model=model), prepared.root)
    whole = space.with_fitted_anchors(own, fingerprint(own.data, own.train))
    assert whole.plan == prepared.plan
    assert space.parameters_of(whole.config, whole.plan, "card") == (
        space.parameters_of(prepared.config, prepared.plan, "card")
    )
    *known, mine = space.first_trials(whole.config, whole.plan, "card")
    assert [first.name for first in known] == ["fitted", "torchvision", "reference"]
    assert (mine.name, mine.anchor_sizes, mine.aspect_ratios) == ("own", REFERENCE_ANCHORS[:3], (0.5, 1.0))


@pytest.mark.parametrize("kind", ["card", "wide"])
def test_first_trials_lie_in_the_space_and_bring_their_anchors_and_the_recipes_numbers(prepared, kind):
    study = optuna.create_study()
    for first in space.first_trials(prepared.config, prepared.plan, kind):
        attributes = {"anchor_sizes": list(first.anchor_sizes), "aspect_ratios": list(first.aspect_ratios)}
        study.enqueue_trial(first.parameters, user_attrs=attributes)
        trial = study.ask()
        fields = space.suggest(trial, prepared.config, prepared.plan, kind)
        assert trial.params == first.parameters
        assert fields["model.anchor_sizes"] == list(first.anchor_sizes)
        assert fields["model.aspect_ratios"] == list(first.aspect_ratios)
        assert fields["train.learning_rate"] == prepared.config.train.learning_rate
        replaced(prepared.config, fields)


def test_parameters_give_the_anchors_in_network_pixels(prepared):
    parameters = {"anchor_base": prepared.plan.anchor_sizes[0] / prepared.plan.zoom, "anchor_scale": 1.5}
    fields = suggested(prepared, "card", **parameters, anchors_per_level=2, ratio_max=2.0)
    sizes = np.array(fields["model.anchor_sizes"])
    assert len(sizes) == 6  # two on each of three levels
    np.testing.assert_allclose(sizes[1:] / sizes[:-1], 1.5, rtol=0.01)
    assert sizes[0] == pytest.approx(prepared.plan.anchor_sizes[0], abs=0.01)
    assert fields["model.aspect_ratios"] == [0.5, 1.0, 2.0]


def test_anchors_grow_with_the_zoom(prepared):
    half, whole = (suggested(prepared, "wide", zoom=prepared.plan.zoom * factor) for factor in (0.75, 1.5))
    assert whole["model.anchor_sizes"][0] == pytest.approx(2 * half["model.anchor_sizes"][0], rel=0.01)
    assert whole["predict.zoom"] == 2 * half["predict.zoom"]


def test_the_overlap_of_tiles_grows_with_the_zoom_up_to_half_a_tile(prepared):
    overlaps = []
    for tile, factor in ((1024, 1 / 1.5), (1024, 1), (1024, 1.5), (96, 1), (96, 1.5)):
        predict = dataclasses.replace(prepared.config.predict, tile=tile)
        config = dataclasses.replace(prepared.config, predict=predict)
        (first, *_) = space.first_trials(config, prepared.plan, "wide")
        trial = optuna.trial.FixedTrial({**first.parameters, "zoom": prepared.plan.zoom * factor})
        overlaps.append(space.suggest(trial, config, prepared.plan, "wide")["predict.overlap"])
    assert prepared.config.predict.overlap == 32
    assert overlaps == [22, 32, 48, 32, 48]


def test_no_zoom_is_searched_where_images_are_brought_to_a_short_side(prepared):
    predict = dataclasses.replace(prepared.config.predict, short_side=800)
    config = dataclasses.replace(prepared.config, predict=predict)
    assert set(space.parameters_of(config, prepared.plan, "wide")) == WIDE - {"zoom"}
    (first, *_) = space.first_trials(config, prepared.plan, "wide")
    fields = space.suggest(optuna.trial.FixedTrial(first.parameters), config, prepared.plan, "wide")
    assert not {"predict.zoom", "predict.overlap"} & set(fields)


def test_each_optimiser_has_its_own_learning_rates(prepared):
    rate = prepared.config.train.learning_rate
    fields = suggested(prepared, "wide", optimizer="sgd", learning_rate_sgd=rate * space.SGD_OVER_ADAMW)
    assert fields["train.optimizer"] == "sgd"
    assert fields["train.learning_rate"] == rate * space.SGD_OVER_ADAMW
    sgd = dataclasses.replace(prepared.config, train=dataclasses.replace(prepared.config.train, optimizer="sgd"))
    assert "learning_rate_adamw" in space.parameters_of(sgd, prepared.plan, "wide")


@pytest.mark.parametrize("kind", ["card", "wide"])
def test_every_draw_is_a_config(prepared, kind):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(30):
        fields = space.suggest(study.ask(), prepared.config, prepared.plan, kind)
        config = replaced(prepared.config, fields)
        assert 0 <= config.train.warmup_fraction <= space.LONGEST_WARMUP
        assert len(config.model.anchor_sizes) % config.model.levels == 0


def test_the_space_follows_the_recipe_and_says_its_bounds(prepared):
    train = dataclasses.replace(prepared.config.train, learning_rate=0.01)
    other = dataclasses.replace(prepared.config, train=train)
    before, now = (space.parameters_of(config, prepared.plan, "card") for config in (prepared.config, other))
    assert {name for name in before if before[name] != now[name]} == {"learning_rate"}
    assert "0.002" in now["learning_rate"]
