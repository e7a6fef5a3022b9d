"""Which finals are trained; test_study_report.py tells which settings are finalists, test_workers.py runs studies."""

from types import SimpleNamespace

import objective
import optuna
import pytest
from ladder import Finals, climb, finals_of
from optuna.trial import TrialState
from storage import open_storage
from workers import Stop

from cellseg.fingerprint import fingerprint


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'optuna.db'}", heartbeat=60)


@pytest.fixture
def trained(monkeypatch):
    """The finals that are trained, by candidate and seed; the training itself is left out."""
    places = []

    def train(trial, *_):
        places.append((trial.params["candidate"], trial.params["seed"]))
        return SimpleNamespace(metrics={"best/AP50": 0.5})

    monkeypatch.setattr(objective, "_train", train)
    monkeypatch.setattr(objective, "end_if_running", lambda tags, reason: None)
    return places


@pytest.fixture
def climbed(storage, prepared, tmp_path):
    """A study of trials with these AP50s whose finals are trained by a call with these options."""
    study = optuna.create_study(study_name="s", storage=storage.backend, direction="maximize")
    study.set_user_attr("id", "x")
    cells = fingerprint(prepared.data, prepared.train)
    shared = objective.Task(prepared, prepared, cells, "card", False, tmp_path, parent=None, stop=lambda: False)

    def run(values, finals):
        for value in values:
            overrides = {"train.learning_rate": 1e-3}
            study.add_trial(optuna.create_trial(value=value, user_attrs={"overrides": overrides}))
        climb(study, storage, shared, len(study.trials), finals, Stop())
        return study

    return run


def test_finals_that_an_earlier_call_queued_and_this_one_does_not_want_are_not_trained(climbed, trained, storage):
    study = climbed([0.1, 0.2, 0.3], Finals(2, 1, yardsticks=False))
    assert trained == [(2, 0), (1, 0)]
    (last_rung,) = finals_of(study, storage)
    for seed in (1, 2):  # queued by a call for three seeds that was stopped
        place = {"candidate": 2, "seed": seed}
        last_rung.enqueue_trial(place, user_attrs={**place, "overrides": {"train.learning_rate": 1e-3}})
    trained.clear()
    climbed([0.4], Finals(1, 2, yardsticks=False))
    assert trained == [(3, 0), (3, 1)]
    dropped = [trial for trial in last_rung.trials if trial.state == TrialState.PRUNED]
    assert [trial.params for trial in dropped] == [{"candidate": 2, "seed": 1}, {"candidate": 2, "seed": 2}]
    trained.clear()
    climbed([], Finals(3, 2, yardsticks=False))
    assert trained == [(2, 1), (1, 1)]  # what had been dropped, and is wanted again
