import logging
from dataclasses import replace
from pathlib import Path

import pytest

from cellseg.checkpoint import Checkpoint
from cellseg.config import DatasetConfig, ModelConfig, PredictConfig, RunConfig
from cellseg.fine_tune import at_its_scale, begun_from, warn_of_peeking
from cellseg.fingerprint import Plan
from cellseg.recipes import best

PLAN = Plan("d1gest", ("a", "b"), "rgb", 1.5, 64, (8.0,), (1.0,), 10, 10.0, 8, images=("image0", "image1"), mpp=0.25)
PATH = Path("runs/best.pt")


@pytest.fixture
def source():
    """A small network for two classes that was trained from scratch on gray images at a zoom of 1.5."""
    model = ModelConfig(
        num_cell_classes=2,
        backbone="resnet18",
        stages=3,
        weights="none",
        fpn_channels=64,
        anchor_sizes=(8.0, 16.0, 32.0, 64.0),
        aspect_ratios=(1.0,),
        logit_adjustment=0.5,
        class_shares=(0.9, 0.1),
    )
    dataset, predict = DatasetConfig(color="gray", validation_fraction=0.5), PredictConfig(zoom=1.5, short_side=800)
    return Checkpoint({}, RunConfig("demo", 3, "cpu", dataset, model=model, predict=predict), PLAN, "", 1, {}, {})


def test_the_network_and_what_it_is_shown_are_the_checkpoint_s_and_the_rest_is_not(source):
    config = begun_from(PATH, source, best(), {})
    taken = replace(
        source.config.model, num_cell_classes=4, class_shares=None, weights="runs/best.pt", norm="batch"
    )  # trained from scratch it normalises by the batch, which "auto" would no longer mean with weights
    assert config == replace(
        best(),
        model=taken,
        dataset=DatasetConfig(color="gray"),
        predict=replace(best().predict, short_side=800),
    )


def test_what_was_chosen_by_hand_stays(source):
    by_hand = replace(best(), model=replace(best().model, box_head=77), dataset=DatasetConfig(color="rgb"))
    config = begun_from(PATH, source, by_hand, {"model.box_head", "dataset.color"})
    assert (config.model.box_head, config.dataset.color, config.model.backbone) == (77, "rgb", "resnet18")


def test_images_of_another_scale_are_zoomed_to_the_size_that_the_network_knows(source, caplog):
    caplog.set_level(logging.INFO, "cellseg")
    assert at_its_scale(source, best(), 0.5).predict.zoom == 3
    assert at_its_scale(source, best(), 0.25).predict.zoom == 1.5
    assert caplog.messages == [
        "zoom 3, where the checkpoint has 1.5: 0.5 µm a pixel, where the training data has 0.25: zoomed by 2",
        "zoom 1.5, where the checkpoint has 1.5: the scale is the same",
    ]


def test_a_zoom_by_hand_stays_and_without_both_scales_it_is_the_plan_s(source):
    by_hand = replace(best(), predict=PredictConfig(zoom=1.0))
    assert at_its_scale(source, by_hand, 0.5) == by_hand
    assert at_its_scale(source, best(), None) == best()
    assert at_its_scale(replace(source, plan=replace(PLAN, mpp=None)), best(), 0.5) == best()


def test_images_held_back_that_the_checkpoint_was_trained_on_are_warned_of(source, data, caplog):
    own = replace(source, plan=replace(PLAN, digest=data.digest))
    warn_of_peeking(own, data, [2, 3])
    assert caplog.messages == []
    warn_of_peeking(own, data, [0, 3])
    warn_of_peeking(source, data, [0, 3])  # other data, or the same but for a file
    assert caplog.messages == [
        "1 of 2 images held back were in the checkpoint's training: their figures flatter it",
        "1 of 2 images held back have the name of one in the checkpoint's training: their figures flatter it, "
        "if they are the same",
    ]
