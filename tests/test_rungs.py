"""What trials and finals train on."""

import dataclasses

import pytest
from rungs import prepare_rungs, require_validation


def test_trials_see_a_share_of_the_data_for_a_fifth_of_the_epochs_and_finals_all_of_it(run_config, folder):
    config = dataclasses.replace(run_config, train=dataclasses.replace(run_config.train, epochs=10, patience=3))
    rungs = prepare_rungs(config, folder, None, 0.5, "card")
    assert (rungs.trials.config.train.epochs, rungs.trials.config.train.patience) == (2, 0)
    assert (rungs.finals.config.train.epochs, rungs.finals.config.train.patience) == (10, 3)
    assert (rungs.trials.config.dataset.subset, rungs.finals.config.dataset.subset) == (0.5, 1.0)
    assert prepare_rungs(config, folder, 4, 1.0, "card").trials.config.train.epochs == 4
    assert len(rungs.cells.names) == len(rungs.finals.train)


def test_crops_have_room_for_the_least_zoom_of_the_space(run_config, folder):
    augment = dataclasses.replace(run_config.augment, crop=24, zoom_jitter=1.0)
    config = dataclasses.replace(run_config, augment=augment)
    for kind, sides in (("card", {24}), ("wide", {36})):  # images of 72 rows
        trials = prepare_rungs(config, folder, 1, 0.5, kind).trials
        assert {trials.data.records[index].size_hw[0] for index in [*trials.train, *trials.validation]} == sides
        assert trials.config.predict.zoom == 1.0


def test_a_search_without_validation_images_is_refused(prepared):
    with pytest.raises(ValueError, match=r"validate on.*--dataset\.validation-fraction"):
        require_validation(dataclasses.replace(prepared, validation=[]))
