"""What a study chooses, refuses and hands on; test_scripts.py runs it whole."""

import dataclasses
import sys

import numpy as np
import optuna
import pytest
from test_scripts import ROOT

from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS
from cellseg.experiment import prepare
from cellseg.recipes import REFERENCE_ANCHORS, REFERENCE_RATIOS
from cellseg.train import EpochReport

sys.path.insert(0, str(ROOT / "search"))
import objective
import space
import study as studies


@pytest.fixture(scope="module")
def prepared(folder, run_config):
    model = dataclasses.replace(run_config.model, stages=3, anchor_sizes=None, aspect_ratios=None, sizes_per_level=2)
    return prepare(dataclasses.replace(run_config, model=model), folder)


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def asked(study, prepared):
    """The next trial of a study, and the config fields that it sets."""
    trial = study.ask()
    return trial, space.suggest(trial, prepared.config, prepared.plan)


def test_the_first_trials_are_the_fitted_the_default_and_the_reference_anchors_exactly(prepared, storage):
    study = studies.open_study("s", storage, prepared)
    tried = [asked(study, prepared)[1] for _ in range(4)]
    assert tried[0]["model.anchor_sizes"] == list(prepared.plan.anchor_sizes)
    assert tried[0]["model.aspect_ratios"] == list(prepared.plan.aspect_ratios)
    assert tried[1]["model.anchor_sizes"] == list(TORCHVISION_ANCHORS[:3])
    assert tried[1]["model.aspect_ratios"] == list(TORCHVISION_RATIOS)
    assert tried[2]["model.anchor_sizes"] == list(REFERENCE_ANCHORS[:3])
    assert tried[2]["model.aspect_ratios"] == list(REFERENCE_RATIOS)
    assert {each["train.learning_rate"] for each in tried[:3]} == {prepared.config.train.learning_rate}
    assert len(tried[3]["model.anchor_sizes"]) == 6  # sampled: two sizes on each of three levels


def test_anchors_that_miss_the_cells_are_refused_before_any_training(prepared, storage, tmp_path):
    study = studies.open_study("s", storage, prepared)
    shared = objective.task(prepared, tmp_path, parent="none")
    for _ in range(2):
        study.tell(study.ask(), 0.0)
    reference = study.ask()
    with pytest.raises(optuna.TrialPruned, match="best possible recall"):
        objective.objective(reference, shared)
    assert reference.user_attrs["anchor_recall"] < 0.5
    assert "best possible recall" in reference.user_attrs["prune_reason"]
    assert list(tmp_path.glob("*.pt")) == []


def report_of(epoch, ap50):
    return EpochReport(epoch, epoch, {"val/AP50": ap50}, [], {}, False, None)


def test_a_trial_under_the_median_is_stopped_but_not_before_the_longest_warm_up_is_over(prepared, storage):
    config = dataclasses.replace(prepared.config, train=dataclasses.replace(prepared.config.train, epochs=10))
    study = studies.open_study("s", storage, dataclasses.replace(prepared, config=config))
    for value in (0.5, 0.5, 0.5, 0.5):
        trial = study.ask()
        for epoch in range(1, 11):
            trial.report(value, epoch)
        study.tell(trial, value)
    watcher = objective.Watcher(study.ask())
    stopped = [watcher.epoch(report_of(epoch, 0.1)) for epoch in range(1, 4)]
    assert stopped == [False, False, True]  # up to 0.3 x 10 epochs are warm-up
    assert "under the median" in watcher.reason


def test_a_good_trial_goes_on(prepared, storage):
    study = studies.open_study("s", storage, prepared)
    for _ in range(4):
        trial = study.ask()
        trial.report(0.5, 1)
        study.tell(trial, 0.5)
    assert not objective.Watcher(study.ask()).epoch(report_of(1, 0.6))


def test_a_study_goes_on_under_its_name_and_is_refused_for_another_recipe(prepared, storage):
    first = studies.open_study("s", storage, prepared)
    first.tell(first.ask(), 0.1)
    again = studies.open_study("s", storage, prepared)
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "WAITING", "WAITING"]
    other = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, recipe="best"))
    with pytest.raises(ValueError, match="choose another name"):
        studies.open_study("s", storage, other)


def test_a_study_that_goes_on_does_not_draw_its_trials_again(prepared, storage):
    drawn = []
    for _ in range(2):
        study = studies.open_study("s", storage, prepared)
        for _ in range(4):
            trial, _ = asked(study, prepared)
            drawn.append(tuple(trial.params.values()))
            study.tell(trial, 0.0)
    assert len(set(drawn)) == 8


@pytest.mark.parametrize("storage", ["sqlite:////no/such/folder/optuna.db", "postgres", "nosuch://host/db"])
def test_a_storage_that_cannot_be_used_is_named(prepared, storage):
    with pytest.raises(ValueError, match=r"--storage .*no study can be kept there"):
        studies.open_study("s", storage, prepared)


def test_parameters_of_a_sampled_trial_give_its_anchors(prepared, storage):
    study = studies.open_study("s", storage, prepared)
    for _ in range(3):
        study.tell(study.ask(), 0.0)
    trial, fields = asked(study, prepared)
    sizes = np.array(fields["model.anchor_sizes"])
    np.testing.assert_allclose(sizes[1:] / sizes[:-1], trial.params["anchor_scale"], rtol=0.01)
    assert sizes[0] == pytest.approx(trial.params["anchor_base"], abs=0.01)
    assert fields["train.warmup_fraction"] <= space.LONGEST_WARMUP
