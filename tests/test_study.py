"""A study is begun, gone on with, or refused."""

import dataclasses

import optuna
import pytest
import space
import study as studies
from optuna.trial import TrialState
from sqlalchemy import text
from storage import open_storage
from workers import claim


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'optuna.db'}", heartbeat=1)


def opened(storage, prepared, kind="card", pruner="median", **full):
    config = with_train(prepared, **{"epochs": 10, "patience": 0, **full}).config
    return studies.open_study("s", storage, prepared, config, kind, pruner)


def with_train(prepared, **fields):
    train = dataclasses.replace(prepared.config.train, **fields)
    return dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, train=train))


def test_a_study_goes_on_under_its_name(prepared, storage):
    first = opened(storage, prepared)
    first.add_trial(optuna.create_trial(value=0.1))
    again = opened(storage, prepared)
    assert [trial.value for trial in again.trials] == [0.1]
    assert again.user_attrs["id"] == first.user_attrs["id"]


def test_where_it_runs_may_change(prepared, storage):
    opened(storage, prepared)
    dataset = dataclasses.replace(prepared.config.dataset, workers=3)
    elsewhere = dataclasses.replace(prepared.config, device="cuda:1", dataset=dataset)
    opened(storage, dataclasses.replace(prepared, config=elsewhere))


def test_a_changed_space_is_refused_with_what_changed(prepared, storage, monkeypatch):
    opened(storage, prepared)
    monkeypatch.setattr(space, "RATIOS", (1.0, 5.0))
    with pytest.raises(ValueError, match=r"space ratio_max .*high=3.0.*now .*high=5.0") as refused:
        opened(storage, prepared)
    assert "anchor_base" not in str(refused.value)


def test_a_parameter_that_sets_another_field_is_refused_and_a_study_that_did_not_tell_is_trusted(
    prepared, storage, monkeypatch
):
    study = opened(storage, prepared, "wide")
    identity = study.user_attrs["identity"]
    other = {**space.WIDE, "train.rpn_nms": space.WIDE["model.rpn_nms"]}
    del other["model.rpn_nms"]
    monkeypatch.setattr(space, "WIDE", other)
    with pytest.raises(ValueError, match=r"go back to fields that the space makes of its parameters \w{8}, now \w{8}$"):
        opened(storage, prepared, "wide")
    study.set_user_attr("identity", {name: text for name, text in identity.items() if name != studies.MADE})
    opened(storage, prepared, "wide")


def test_another_space_recipe_schedule_pruner_or_data_is_refused_with_what_changed(prepared, storage):
    opened(storage, prepared)
    with pytest.raises(ValueError, match="space zoom not there, now FloatDistribution"):
        opened(storage, prepared, kind="wide")
    with pytest.raises(ValueError, match="pruner median, now halving"):
        opened(storage, prepared, pruner="halving")
    with pytest.raises(ValueError, match=r"train\.batch 1, now 2"):
        opened(storage, with_train(prepared, batch=2))
    with pytest.raises(ValueError, match="epochs of the finals 10, now 20"):
        opened(storage, prepared, epochs=20)
    with pytest.raises(ValueError, match="patience of the finals 0, now 3"):
        opened(storage, prepared, patience=3)
    with pytest.raises(ValueError, match=f"data {prepared.data.digest}, now other"):
        opened(storage, dataclasses.replace(prepared, data=dataclasses.replace(prepared.data, digest="other")))


def test_a_study_of_an_earlier_version_is_not_mixed_into(prepared, storage):
    old = optuna.create_study(study_name="s", storage=storage.backend, direction="maximize")
    old.add_trial(optuna.create_trial(value=0.9))
    with pytest.raises(ValueError, match="choose another name"):
        opened(storage, prepared)


def test_a_study_of_a_newer_format_is_refused_with_the_version_needed(prepared, storage, monkeypatch):
    monkeypatch.setattr(studies, "FORMAT", studies.FORMAT + 1)
    monkeypatch.setattr(studies, "NEEDS", "12.3.0")
    opened(storage, prepared)
    monkeypatch.undo()
    newer, known = studies.FORMAT + 1, studies.FORMAT
    says = rf"--study s: study format {newer} in sqlite:.*optuna\.db, this version reads up to {known}; .* 12\.3\.0 or"
    with pytest.raises(ValueError, match=says) as refused:
        opened(storage, prepared)
    assert "\n" not in str(refused.value)


def test_a_study_goes_on_when_a_version_has_more_fields_and_these_have_their_defaults(prepared, storage):
    study = opened(storage, prepared)
    identity = study.user_attrs["identity"]
    study.set_user_attr("identity", {name: text for name, text in identity.items() if name != "train.clip_norm"})
    opened(storage, prepared)
    with pytest.raises(ValueError, match=r"go back to train\.clip_norm 10\.0, now 3\.0$"):
        opened(storage, with_train(prepared, clip_norm=3.0))


def test_a_study_without_a_format_is_of_the_first(prepared, storage):
    first = opened(storage, prepared)
    with storage.backend.engine.begin() as connection:
        gone = text("DELETE FROM study_user_attributes WHERE key IN ('format', 'needs')")
        assert connection.execute(gone).rowcount == 2
    assert "format" not in (again := opened(storage, prepared)).user_attrs
    assert again.user_attrs["id"] == first.user_attrs["id"]


@pytest.mark.parametrize("name", ["median", "halving"])
def test_no_trial_is_stopped_before_the_longest_warm_up_is_over_and_a_bad_one_is_then(prepared, storage, name):
    study = opened(storage, with_train(prepared, epochs=10), pruner=name)
    for _ in range(5):
        trial = study.ask()
        for epoch in range(1, 11):
            trial.report(0.5, epoch)
            trial.should_prune()
        study.tell(trial, 0.5)
    bad = study.ask()
    told = []
    for epoch in range(1, 4):
        bad.report(0.1, epoch)
        told.append(bad.should_prune())
    assert told == [False, False, True]  # 0.3 x 10 epochs are warm-up


def test_without_a_pruner_nothing_is_stopped(prepared):
    assert isinstance(studies.pruner_of("none", prepared.config), optuna.pruners.NopPruner)


def test_first_trials_are_queued_one_at_a_time_and_drawn_ones_follow(prepared, storage):
    study = opened(storage, prepared)
    names = []
    for _ in range(5):
        trial = claim(study, storage, 5, 0, lambda study: studies.queue_first(study, prepared, "card"))
        names.append(trial.user_attrs.get("anchor_set"))
    assert names == ["fitted", "torchvision", "reference", None, None]
    assert claim(study, storage, 5, 0) is None


def test_no_two_claims_draw_the_same_and_the_seed_decides_what(prepared, storage, tmp_path):
    drawn = {}
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        storage = open_storage(f"sqlite:///{tmp_path / place}.db", heartbeat=1)
        drawn[place] = []
        for _ in range(6):
            study = opened(storage, prepared)  # each time by another worker, as it were
            trial = claim(study, storage, 6, seed)
            space.suggest(trial, prepared.config, prepared.plan, "card")
            study.tell(trial, 0.0)
            drawn[place].append(tuple(trial.params.values()))
    assert len(set(drawn["a"])) == 6
    assert drawn["a"] == drawn["b"]
    assert drawn["a"] != drawn["c"]


def test_a_trial_whose_worker_died_while_claiming_it_is_queued_again(prepared, storage):
    study = opened(storage, prepared)
    study.ask()  # and no sign of life ever
    again = claim(study, storage, 1, 0)
    assert again.number == 1
    assert studies.earlier_tries(study.trials[1]) == [0]
    assert study.trials[0].state == TrialState.FAIL
    last, earlier = studies.tries(study)
    assert ([t.number for t in last], [t.number for t in earlier]) == ([1], [0])


def test_a_trial_that_brings_its_worker_down_each_time_is_given_up(prepared, storage):
    study = opened(storage, prepared)
    for _ in range(studies.RETRIES + 1):
        trial = claim(study, storage, 1, 0)
        study.tell(trial, state=TrialState.FAIL)
    assert claim(study, storage, 1, 0) is None
    assert studies.deaths(study.trials[-1]) == studies.RETRIES + 1
    (last,), earlier = studies.tries(study)
    assert studies.given_up(last)
    assert len(earlier) == studies.RETRIES


def test_a_trial_that_is_stopped_again_and_again_is_not_given_up(prepared, storage):
    study = opened(storage, prepared)
    for _ in range(2 * studies.RETRIES):
        trial = claim(study, storage, 1, 0)
        trial.set_user_attr("interrupted", True)
        study.tell(trial, state=TrialState.FAIL)
    assert claim(study, storage, 1, 0) is not None
