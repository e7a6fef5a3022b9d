"""Which trials are trained, and what stops them."""

import dataclasses
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import objective
import optuna
import pytest
from mlflow import MlflowClient
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from space import first_trials, with_fitted_anchors
from storage import open_storage
from study import queue_first
from workers import Stop, TakenOver, work

from cellseg import whole_files
from cellseg.experiment import prepare
from cellseg.fingerprint import fingerprint
from cellseg.train import EpochReport


@pytest.fixture
def shared(prepared, store, tmp_path, monkeypatch):
    """What the trials of a study share, tracked in a folder of its own."""
    shutil.copy(store, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    cells = fingerprint(prepared.data, prepared.train)
    return objective.Task(prepared, prepared, cells, "card", False, tmp_path, parent=None, stop=lambda: False)


def study_of(shared, anchor_set):
    """A study in memory whose next trial is this first trial."""
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("id", "x")
    for first in first_trials(shared.prepared.config, shared.prepared.plan, "card"):
        if first.name == anchor_set:
            sets = {"anchor_sizes": list(first.anchor_sizes), "aspect_ratios": list(first.aspect_ratios)}
            study.enqueue_trial(first.parameters, user_attrs={"anchor_set": first.name, **sets})
    return study


def runs(tmp_path):
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return store.search_runs([store.get_experiment_by_name("cellseg-search").experiment_id])


def test_anchors_that_miss_the_cells_are_refused_before_any_training(shared, tmp_path):
    trial = study_of(shared, "reference").ask()
    with pytest.raises(optuna.TrialPruned, match=r"best possible recall 0\.\d\d is under 0\.\d\d, 50% of the fitted"):
        objective.objective(trial, shared)
    assert trial.user_attrs["anchor_recall"] < 0.5
    assert "best possible recall" in trial.user_attrs["prune_reason"]
    assert trial.user_attrs["recall_ms"] < 1000
    assert list(tmp_path.glob("**/*.pt")) == []
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"
    assert run.data.tags["pruned"] == trial.user_attrs["prune_reason"]
    assert run.info.run_name == "trial-000 · a4×1.7 · lr 1e-3"  # 4, 8 and 12: a step of 3 ** 0.5


def test_anchors_that_the_config_sets_are_held_against_fitted_ones_too(shared, tmp_path):
    model = dataclasses.replace(shared.prepared.config.model, anchor_sizes=(90.0, 180.0, 360.0), aspect_ratios=(1.0,))
    own = prepare(dataclasses.replace(shared.prepared.config, model=model), shared.prepared.root)
    whole = with_fitted_anchors(own, shared.cells)
    shared = dataclasses.replace(shared, prepared=whole, whole=whole)
    trial = study_of(shared, "own").ask()
    with pytest.raises(optuna.TrialPruned, match=r"recall 0\.00 is under 0\.\d\d, 50% of the fitted"):
        objective.objective(trial, shared)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_refused_trial_whose_worker_died_goes_on_in_its_run(shared, tmp_path):
    study = study_of(shared, "reference")
    with pytest.raises(optuna.TrialPruned):
        objective.objective(study.ask(), shared)
    RetryHeartbeatStaleTrialCallback()(study, study.tell(0, state=TrialState.FAIL))
    with pytest.raises(optuna.TrialPruned):
        objective.objective(study.ask(), shared)
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"
    assert [trial.user_attrs["run_id"] for trial in study.trials] == [run.info.run_id] * 2


def test_a_yardstick_is_trained_whatever_its_anchors_and_is_not_stopped(shared, tmp_path):
    study = study_of(shared, "reference")
    study.pruner = optuna.pruners.ThresholdPruner(lower=2.0)
    trial = study.ask()
    value = objective.objective(trial, dataclasses.replace(shared, yardsticks=True))
    assert 0 <= value <= 1
    assert sorted(trial.study.trials[0].intermediate_values) == [1, 2]
    assert trial.user_attrs["anchor_recall"] < 0.5


def test_a_trained_trial_leaves_its_checkpoint_to_mlflow_alone(shared, tmp_path):
    trial = study_of(shared, "fitted").ask()
    objective.objective(trial, shared)
    assert {path.name for path in tmp_path.glob("*/*/*.pt")} == {"last.pt", "best.pt"}
    objective.empty_folder(trial.study.trials[0], shared)
    assert list(tmp_path.glob("*/*/*.pt")) == []
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    kept = store.list_artifacts(trial.user_attrs["run_id"], "checkpoints")
    assert [each.path for each in kept] == ["checkpoints/best.pt"]


def test_a_trial_that_the_pruner_stops_is_pruned_in_optuna_and_killed_in_mlflow_with_the_reason(shared, tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}", heartbeat=60)
    pruner = optuna.pruners.ThresholdPruner(lower=2.0)
    study = optuna.create_study(study_name="s", storage=storage.backend, direction="maximize", pruner=pruner)
    study.set_user_attr("id", "x")
    fill = partial(queue_first, prepared=shared.prepared, space="card")  # the fitted anchors
    work(study, storage, 1, 0, lambda trial: objective.objective(trial, shared), Stop(), fill=fill)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert list(trial.intermediate_values) == [1]  # of two epochs
    reached = f"AP50 {trial.intermediate_values[1]:.3f} after epoch 1"
    assert trial.user_attrs["prune_reason"] == f"{reached} was too far behind the other trials"
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"
    assert run.data.tags["pruned"] == trial.user_attrs["prune_reason"]
    assert run.data.metrics["val/AP50"] == trial.intermediate_values[1]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_trial_waits_for_the_worker_that_it_was_taken_over_from_and_goes_on_in_its_run(
    shared, tmp_path, monkeypatch, capsys
):
    study = study_of(shared, "fitted")
    answers = iter([False, True])  # before the training, and after its first epoch
    with pytest.raises(KeyboardInterrupt):
        objective.objective(study.ask(), dataclasses.replace(shared, stop=lambda: next(answers)))
    RetryHeartbeatStaleTrialCallback()(study, study.tell(0, state=TrialState.FAIL))
    (folder,) = {path.parent for path in tmp_path.glob("*/*/last.pt")}
    monkeypatch.setattr(whole_files, "LEAVING_SECONDS", 0.1)
    with ExitStack() as held:
        held.enter_context(whole_files.only_writer(folder))
        asked = []

        def stop():
            asked.append(None)
            if len(asked) == 3:  # it has found the folder in use twice
                held.close()
            return False

        objective.objective(study.ask(), dataclasses.replace(shared, stop=stop))
    assert capsys.readouterr().err.count(f"waiting: {folder}: another process writes there") == 2
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert sorted(study.trials[1].intermediate_values) == [1, 2]


def report(epoch, ap50, replayed=False):
    return EpochReport(epoch, epoch, {"val/AP50": ap50}, [], {}, False, Path("run-1/last.pt"), replayed)


def test_a_trial_that_falls_behind_is_stopped_and_says_so():
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.3))
    watcher = objective.Watcher(study.ask(), epochs=9, stop=lambda: False)
    assert not watcher.epoch(report(1, 0.4))
    assert not watcher.epoch(report(2, 0.2, replayed=True))  # judged before the interruption
    assert watcher.epoch(report(3, 0.2))
    assert "0.200 after epoch 3" in watcher.reason


def test_a_trial_ends_between_epochs_when_the_study_is_to_stop_but_finishes_its_last_one():
    trial = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(lower=0.3)).ask()
    watcher = objective.Watcher(trial, epochs=2, stop=lambda: True, pruned=False)
    assert watcher.epoch(report(1, 0.1))
    assert watcher.interrupted
    assert not watcher.epoch(report(2, 0.1))
    assert not watcher.interrupted
    assert trial.user_attrs["run_id"] == "run-1"


def test_a_trial_that_came_to_its_end_is_not_stopped_any_more():
    trial = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(lower=0.3)).ask()
    assert not objective.Watcher(trial, epochs=1, stop=lambda: False).epoch(report(1, 0.1))


def test_a_trial_that_another_worker_has_ends_without_an_exception_that_would_mark_its_run():
    study = optuna.create_study()
    watcher = objective.Watcher(study.ask(), epochs=2, stop=lambda: False)
    study.tell(0, state=optuna.trial.TrialState.FAIL)
    with pytest.raises(TakenOver):
        watcher.epoch(report(1, 0.1))
    assert not issubclass(TakenOver, Exception)
