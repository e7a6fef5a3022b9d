"""What a study tells, worked out by hand from trials that are made up."""

import csv
import json
from dataclasses import replace
from datetime import datetime, timedelta

import optuna
import pytest
import study_report
from figures import figures_of
from ladder import Finals, candidates, open_finals
from matplotlib import pyplot
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from storage import open_storage
from study_outcome import at_one_epoch, importances, read_outcome, saved, seconds_of, winner_of
from study_report import summary, trial_rows, write_report

BOUNDS = {"learning_rate": FloatDistribution(1e-4, 1e-2, log=True), "anchor_base": FloatDistribution(4, 20)}
START = datetime(2026, 1, 1)


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'optuna.db'}", heartbeat=1)


def add(
    study, state, *, value=None, seconds=0, reported=(), system_attrs=None, rate=1e-3, cut_off_after=None, **attributes
):
    """A trial of a state that ended after some seconds, or that was found dead then."""
    if cut_off_after:
        attributes["seconds"] = cut_off_after
    number = len(study.trials)
    trial = optuna.create_trial(
        state=state,
        value=value,
        params={"learning_rate": rate, "anchor_base": 4.0 + number % 16},
        distributions=BOUNDS,
        user_attrs={
            "overrides": {"train.learning_rate": rate, "model.anchor_sizes": [4.0 + number % 16, 9.12345]},
            "anchor_recall": 0.5 + 0.05 * number,
            "recall_ms": 10.0,
            **attributes,
        },
        system_attrs=system_attrs,
        intermediate_values=dict(enumerate(reported, start=1)),
    )
    trial.datetime_start, trial.datetime_complete = START, START + timedelta(seconds=seconds)
    study.add_trial(trial)


@pytest.fixture
def study(storage):
    """Six trained, one stopped, two refused, one failed, one cut off that went on."""
    study = optuna.create_study(study_name="s", storage=storage.backend, direction="maximize")
    for name, value in {"id": "x", "digest": "d1gest", "recipe": "demo"}.items():
        study.set_user_attr(name, value)
    done = TrialState.COMPLETE
    add(study, done, value=0.30, seconds=100, reported=(0.1, 0.3), anchor_set="fitted")
    add(study, done, value=0.10, seconds=100, reported=(0.0, 0.1), anchor_set="torchvision")
    add(study, TrialState.PRUNED, seconds=1, anchor_set="reference", prune_reason="best possible recall 0.01, too low")
    add(study, TrialState.FAIL, seconds=9999, reported=(0.2,), cut_off_after=30.0)  # found out much later
    retry = {"failed_trial": 3, "retry_history": [3]}
    add(study, done, value=0.40, seconds=120, reported=(0.2, 0.4), system_attrs=retry, rate=2e-3)
    add(study, TrialState.PRUNED, value=0.05, seconds=40, reported=(0.05,), prune_reason="too far behind")
    add(study, TrialState.PRUNED, seconds=1, prune_reason="best possible recall 0.02, too low")
    add(study, TrialState.FAIL, seconds=5, fail_reason="OutOfMemoryError: CUDA out of memory")
    add(study, done, value=0.35, seconds=100, reported=(0.2, 0.35))
    add(study, done, value=0.20, seconds=100, reported=(0.1, 0.2), rate=5e-3)
    add(study, done, value=0.25, seconds=90, reported=(0.1, 0.25), rate=4e-4)
    return study


def run_finals(study, storage, finals, values):
    """Finals with an AP50 for each (candidate, seed)."""
    opened = open_finals(study, storage, finals, first_seed=0)
    for trial in opened.trials:
        if trial.state == TrialState.WAITING:
            asked = opened.ask()
            place = asked.user_attrs["candidate"], asked.user_attrs["seed"]
            if values.get(place) is None:
                opened.tell(asked, state=TrialState.FAIL)
            else:
                opened.tell(asked, values[place])
    return opened


def test_the_best_trials_and_where_wanted_the_yardsticks_are_the_candidates(study):
    assert [trial.number for trial in candidates(study, Finals(2, 3, yardsticks=False))] == [4, 8]
    assert [trial.number for trial in candidates(study, Finals(2, 3, yardsticks=True))] == [4, 8, 1]


def test_finals_hold_each_candidate_and_seed_once_also_when_the_study_grew(study, storage):
    def places(finals):
        trials = open_finals(study, storage, finals, first_seed=5).trials
        return [(trial.user_attrs["candidate"], trial.user_attrs["seed"]) for trial in trials]

    expected = [(4, 5), (8, 5), (4, 6), (8, 6)]
    assert places(Finals(2, 2, yardsticks=False)) == expected
    assert places(Finals(2, 2, yardsticks=False)) == expected
    add(study, TrialState.COMPLETE, value=0.9, seconds=100)
    assert places(Finals(2, 2, yardsticks=False)) == [*expected, (11, 5), (11, 6)]


def test_the_winner_has_the_best_mean_not_the_best_trial_or_the_best_seed(study, storage):
    values = {(4, 0): 0.5, (4, 1): 0.2, (8, 0): 0.4, (8, 1): 0.38}
    run_finals(study, storage, Finals(2, 2, yardsticks=False), values)
    winner = winner_of(read_outcome(study, storage))
    assert (winner.trial, winner.seeds, winner.low, winner.high) == (8, 2, 0.38, 0.4)
    assert winner.value == pytest.approx(0.39)
    assert winner.score == "AP50 0.390 (0.380 to 0.400, 2 seeds)"


def test_a_setting_whose_seeds_failed_does_not_win_by_luck(study, storage):
    values = {(4, 0): 0.9, (4, 1): None, (8, 0): 0.4, (8, 1): 0.38}
    run_finals(study, storage, Finals(2, 2, yardsticks=False), values)
    assert winner_of(read_outcome(study, storage)).trial == 8


def test_a_setting_that_an_earlier_call_trained_with_more_seeds_does_not_win_by_that(study, storage):
    run_finals(study, storage, Finals(1, 3, yardsticks=False), {(4, 0): 0.2, (4, 1): 0.3, (4, 2): 0.3})
    add(study, TrialState.COMPLETE, value=0.9, seconds=100)
    now = Finals(1, 1, yardsticks=False)
    run_finals(study, storage, now, {(11, 0): 0.5})
    winner = winner_of(read_outcome(study, storage, now.seeds_from(0)))
    assert (winner.trial, winner.value, winner.seeds) == (11, 0.5, 1)


def test_a_call_without_finals_takes_the_best_trials_word_though_an_earlier_one_had_some(study, storage):
    run_finals(study, storage, Finals(1, 1, yardsticks=True), {(1, 0): 0.5, (4, 0): 0.1})
    winner = winner_of(read_outcome(study, storage, Finals(0, 1, yardsticks=False).seeds_from(0)))
    assert (winner.trial, winner.value, winner.seeds) == (4, 0.4, 0)


def test_without_finals_the_best_trial_wins_and_without_any_trial_nothing_does(study, storage):
    winner = winner_of(read_outcome(study, storage))
    assert (winner.trial, winner.value, winner.seeds) == (4, 0.4, 0)
    assert winner.score == "AP50 0.400 (one short training)"
    empty = optuna.create_study(study_name="empty", storage=storage.backend)
    for name, value in study.user_attrs.items():
        empty.set_user_attr(name, value)
    with pytest.raises(ValueError, match="no trial was trained to its end"):
        winner_of(read_outcome(empty, storage))


def test_what_was_saved_is_the_rest_of_a_typical_training(study, storage):
    spared = saved(read_outcome(study, storage))
    assert (spared.refused, spared.pruned) == (2, 1)
    assert spared.refused_seconds == 2 * (100 - 1)  # the median trained trial took 100 s
    assert spared.pruned_seconds == 100 - 40
    assert spared.recall_ms == 10


def test_the_time_of_a_trial_is_that_of_its_tries_while_they_lived(study, storage):
    outcome = read_outcome(study, storage)
    assert outcome.seconds(study.trials[4]) == 120 + 30
    spent = sum(map(seconds_of, outcome.all_tries))
    assert spent == 100 + 100 + 1 + 30 + 120 + 40 + 1 + 5 + 100 + 100 + 90


def test_the_table_has_a_row_a_try_with_reasons(study, storage):
    rows = trial_rows(read_outcome(study, storage))
    assert list(rows[0])[:7] == [
        *("number", "state", "prune_reason", "value", "anchor_base", "learning_rate", "seconds"),
    ]
    assert [row["number"] for row in rows] == list(range(11))
    assert rows[2]["prune_reason"] == "best possible recall 0.01, too low"
    assert rows[3]["fail_reason"] == "its worker died; went on as another try"
    assert rows[4]["retry_of"] == 3
    assert rows[7]["fail_reason"] == "OutOfMemoryError: CUDA out of memory"


def test_study_md_says_in_ten_lines_what_was_learned(study, storage):
    values = {(4, 0): 0.5, (4, 1): 0.44, (8, 0): 0.4, (8, 1): 0.38, (1, 0): 0.1, (1, 1): 0.11}
    run_finals(study, storage, Finals(2, 2, yardsticks=True), values)
    said = summary(read_outcome(study, storage), "python search/optuna_study.py")
    assert len(said) <= 12  # a title, a blank line, ten lines
    text = "\n".join(said)
    assert "10 trials of recipe demo" in text
    assert "6 trained to their end, 1 stopped by the pruner, 2 refused for their anchors, 1 failed" in text
    assert "trial 4, AP50 0.470 (0.440 to 0.500, 2 seeds): learning_rate 0.002, anchor_sizes (8.0, 9.123)" in text
    assert "trial 8 0.390 (0.380 to 0.400)" in text
    assert "torchvision's default anchors**: +0.365 AP50 in full (0.105 (0.100 to 0.110)), beyond the range" in text
    assert "the reference's anchors**: not trained to its end: best possible recall 0.01, too low" in text
    assert "differs by 0.030 between seeds (mean range of 3 settings, 2 seeds each; largest 0.060)" in text
    assert "refused 2 trials in 10 ms each, which saved about 3 min" in text
    assert "1 tries were cut off" in text
    assert "too few trials were trained to tell (7; 10 are needed)" in text


def test_importance_compares_all_trained_trials_after_the_same_epoch(study, storage):
    outcome = read_outcome(study, storage)
    levelled, epoch = at_one_epoch(outcome)
    assert epoch == 1  # where the stopped one was stopped
    assert sorted(trial.value for trial in levelled.trials) == [0.0, 0.05, 0.1, 0.1, 0.1, 0.2, 0.2]
    assert importances(outcome) == {}


def test_the_knob_that_decides_comes_first(study, storage):
    for number in range(20):  # AP50 follows from the learning rate alone
        rate = 1e-4 * 1.2**number
        add(study, TrialState.COMPLETE, value=1.0, seconds=100, reported=(1 - number / 20,), rate=rate)
    outcome = read_outcome(study, storage)
    shares = importances(outcome)
    assert list(shares) == ["learning_rate", "anchor_base"]
    assert sum(shares.values()) == pytest.approx(1)
    assert "**What mattered**: learning_rate" in "\n".join(summary(outcome, "x"))
    assert "of 27 trials" in "\n".join(summary(outcome, "x"))
    assert "importances" in figures_of(study, outcome)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"a": 0.3, "b": 0.28, "c": 0.22, "d": 0.2}, "no knob stands out: a 30%, b 28%, c 22%, d 20% ("),
        ({"a": 0.7, "b": 0.2, "c": 0.1}, "**What mattered**: a 70%, b 20%; little: c 10% ("),
    ],
)
def test_even_shares_are_not_said_to_matter(study, storage, monkeypatch, shares, said):
    monkeypatch.setattr(study_report, "importances", lambda outcome: shares)
    assert said in "\n".join(summary(read_outcome(study, storage), "x"))


def test_finals_of_a_study_that_was_deleted_are_not_those_of_its_namesake(study, storage):
    run_finals(study, storage, Finals(1, 1, yardsticks=False), {(4, 0): 0.99})
    optuna.delete_study(study_name="s", storage=storage.backend)
    new = optuna.create_study(study_name="s", storage=storage.backend, direction="maximize")
    for name, value in {"id": "y", "digest": "d1gest", "recipe": "demo"}.items():
        new.set_user_attr(name, value)
    add(new, TrialState.COMPLETE, value=0.2, seconds=100)
    assert read_outcome(new, storage).finalists == []
    assert winner_of(read_outcome(new, storage)).value == 0.2


def test_a_lead_of_one_seed_is_not_said_to_be_beyond_anything(study, storage):
    run_finals(study, storage, Finals(1, 1, yardsticks=True), {(4, 0): 0.5, (1, 0): 0.2})
    text = "\n".join(summary(read_outcome(study, storage), "x"))
    assert "+0.300 AP50 in full (0.200 (0.200 to 0.200)), one seed each" in text


def test_a_winner_without_finals_is_compared_with_the_yardsticks_as_trials(study, storage):
    said = "\n".join(summary(read_outcome(study, storage), "x"))
    assert "torchvision's default anchors**: +0.300 AP50 as a trial (0.100), one seed each" in said


def test_a_yardstick_that_wins_is_said_to_be_the_best_and_one_that_is_still_to_come_not_tried_yet(study, storage):
    add(study, TrialState.COMPLETE, value=0.9, seconds=100, reported=(0.8, 0.9), anchor_set="torchvision")
    won = read_outcome(study, storage)
    trials = [trial for trial in won.trials if trial.number not in (1, 2)]  # the yardsticks that the study had
    text = "\n".join(summary(replace(won, trials=trials), "x"))
    assert "torchvision's default anchors**: this is the best" in text
    assert "the reference's anchors**: not tried yet" in text


def test_a_yardstick_that_was_stopped_is_not_compared_with(study, storage):
    add(study, TrialState.PRUNED, value=0.01, seconds=9, reported=(0.01,), prune_reason="too far behind")
    stopped = read_outcome(study, storage)
    trials = [t for t in stopped.trials if t.user_attrs.get("anchor_set") != "torchvision"]
    trials[-1].user_attrs["anchor_set"] = "torchvision"
    said = "\n".join(summary(replace(stopped, trials=trials), "x"))
    assert "torchvision's default anchors**: not trained to its end: too far behind" in said


def test_a_lead_that_is_smaller_than_the_seeds_range_is_not_called_one(study, storage):
    values = {(4, 0): 0.5, (4, 1): 0.2, (1, 0): 0.34, (1, 1): 0.35}
    run_finals(study, storage, Finals(1, 2, yardsticks=True), values)
    assert "within the range of the seeds" in "\n".join(summary(read_outcome(study, storage), "x"))


def test_files_are_written_and_read_back(study, storage, tmp_path):
    files = write_report(read_outcome(study, storage), tmp_path, "python search/optuna_study.py")
    assert set(files) == {"trials.csv", "finals.csv", "best.json", "study.md"}
    with files["trials.csv"].open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)].count("COMPLETE") == 6
    assert json.loads(files["best.json"].read_text())["trial"] == 4
    assert files["study.md"].read_text().startswith("# Study s\n")
    assert {path.name for path in files["study.md"].parent.iterdir()} == set(files)


def test_a_study_without_a_trained_trial_leaves_its_tables(storage, tmp_path):
    study = optuna.create_study(study_name="new", storage=storage.backend)
    for name in ("id", "digest", "recipe"):
        study.set_user_attr(name, name)
    files = write_report(read_outcome(study, storage), tmp_path, "x")
    assert set(files) == {"trials.csv", "finals.csv"}
    assert set(figures_of(study, read_outcome(study, storage))) == {"recall_against_ap", "ap_over_time"}


def test_pyplot_keeps_no_figure_of_a_study(study, storage):
    assert figures_of(study, read_outcome(study, storage))
    assert pyplot.get_fignums() == []


def test_every_plot_is_drawn(study, storage, tmp_path):
    figures = figures_of(study, read_outcome(study, storage))
    assert set(figures) == {
        *("history", "parallel_coordinates", "slices", "ap_over_time", "recall_against_ap"),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png", bbox_inches="tight")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    (axes,) = figures["ap_over_time"].axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert drawn["trial 4"] == [0.2, 0.4]
    recalls = [path.get_offsets().tolist() for path in figures["recall_against_ap"].axes[0].collections]
    assert [len(each) for each in recalls] == [6, 1, 2]  # trained, stopped, refused
