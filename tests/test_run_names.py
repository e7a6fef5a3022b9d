from dataclasses import replace

from cellseg.recipes import RECIPES
from cellseg.run_names import run_name, title


def settled(**predict):
    """The demo's recipe with two sizes of 16 and 33.6 network pixels, at a zoom of 2."""
    config = RECIPES["demo"]()
    return replace(
        config,
        model=replace(config.model, anchor_sizes=(16.0, 33.6)),
        train=replace(config.train, learning_rate=3e-3),
        predict=replace(config.predict, **{"zoom": 2.0, **predict}),
    )


def test_a_trial_is_named_by_its_number_its_anchors_in_image_pixels_and_its_rate():
    assert run_name("trial-007", settled()) == "trial-007 · a8×2.1 · lr 3e-3"


def test_anchors_that_wait_for_the_plan_are_left_out():
    open_anchors, open_zoom = RECIPES["demo"](), settled(zoom=None)
    assert run_name("folds", replace(open_anchors, train=open_zoom.train)) == "folds · lr 3e-3"
    assert run_name("folds", open_zoom) == "folds · lr 3e-3"


def test_where_each_image_has_a_zoom_of_its_own_anchors_are_told_as_they_are():
    assert run_name("final", settled(zoom=None, short_side=800)) == "final · a16×2.1 · lr 3e-3"


def test_seeds_and_backbones_are_told_apart():
    config = settled()
    assert title(config) == "demo resnet18 seed 0"
    other = replace(config, seed=3, model=replace(config.model, backbone="resnet50"))
    assert title(other) == "demo resnet50 seed 3"
