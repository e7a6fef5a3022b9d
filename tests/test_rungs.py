"""What trials and finals train on."""

import dataclasses

import pytest
from rungs import prepare_rungs, require_validation


def test_trials_see_a_share_of_the_data_for_a_fifth_of_the_epochs_and_finals_all_of_it(run_config, folder):
    config = dataclasses.replace(run_config, train=dataclasses.replace(run_config.train, epochs=10, patience=3))
    rungs = prepare_rungs(config, folder, None, 0.5)
    assert (rungs.trials.config.train.epochs, rungs.trials.config.train.patience) == (2, 0)
    assert (rungs.finals.config.train.epochs, rungs.finals.config.train.patience) == (10, 3)
    assert (rungs.trials.config.dataset.subset, rungs.finals.config.dataset.subset) == (0.5, 1.0)
    assert prepare_rungs(config, folder, 4, 1.0).trials.config.train.epochs == 4
    assert len(rungs.cells.names) == len(rungs.finals.train)


def test_a_search_without_validation_images_is_refused(prepared):
    with pytest.raises(ValueError, match=r"validate on.*--dataset\.validation-fraction"):
        require_validation(dataclasses.replace(prepared, validation=[]))
