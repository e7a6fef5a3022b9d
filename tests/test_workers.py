"""Workers that are killed, stopped, starved of memory, and two that share a study: real processes all of them."""

import json
import os
import re
import shutil
import signal
from collections import Counter
from contextlib import suppress

import optuna
import pytest
import sqlalchemy
from mlflow import MlflowClient
from optuna.trial import TrialState
from storage import open_storage
from studies import HELD, MORTAL, SEARCH, finish, gone, let_go, running_past_an_epoch, start, trials, until, worker_of
from study import earlier_tries
from workers import Stop, TakenOver, claim, work

TWO = ["--trials", "2", "--trial-epochs", "3", "--train.epochs", "3", "--workers", "2"]


@pytest.fixture
def address(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def children(folder):
    """The MLflow runs of trials, and a client."""
    store = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = store.get_experiment_by_name("cellseg-search")
    runs = store.search_runs([experiment.experiment_id], "tags.stage = 'trial'")
    return store, {int(run.data.tags["trial"]): run for run in runs}


def steps(store, run, name):
    """The steps at which a figure was logged, in order of time."""
    return [metric.step for metric in store.get_metric_history(run.info.run_id, name)]


def pictures(store, run):
    """How many pictures of predictions were logged at each step; an epoch that is told again on resume draws none."""
    names = [each.path for each in store.list_artifacts(run.info.run_id, "images")]
    return Counter(int(re.search(r"[+%]step[+%](\d+)[+%]", name).group(1)) for name in names)


def assert_every_trial_ended_once(address, count, name="s"):
    """Each trial has one last try that is COMPLETE or PRUNED; each other try went on as exactly one next one."""
    tried = trials(address, name)
    again = Counter(earlier_tries(trial)[-1] for trial in tried if earlier_tries(trial))
    last = [trial for trial in tried if trial.number not in again]
    assert len(last) == count
    assert {trial.state for trial in last} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(times == 1 for times in again.values())


@pytest.fixture
def opened(address):
    """A study without trials and its storage, in this process."""
    storage = open_storage(address, heartbeat=20)
    return optuna.create_study(study_name="s", storage=storage.backend, direction="maximize"), storage


def test_a_worker_gives_up_when_trial_after_trial_fails(opened):
    study, storage = opened
    outcomes = iter([KeyError("odd"), 0.5, RuntimeError("CUDA"), MemoryError(), FloatingPointError("nan, twice")])

    def run(trial):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(ValueError, match="3 trials failed one after another, the last with FloatingPointError: nan"):
        work(study, storage, 20, 0, run, Stop())
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "FAIL", "FAIL", "FAIL"]
    assert study.trials[3].user_attrs["fail_reason"] == "MemoryError: "


def test_what_the_user_can_mend_ends_the_worker_and_the_trial_is_tried_again(opened):
    study, storage = opened

    def broken(trial):
        raise FileNotFoundError("weights.pt: no such file")

    with pytest.raises(FileNotFoundError):
        work(study, storage, 1, 0, broken, Stop())
    assert study.trials[0].user_attrs["death"] == "FileNotFoundError: weights.pt: no such file"
    work(study, storage, 1, 0, lambda trial: 0.7, Stop())
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert "death" not in study.trials[1].user_attrs
    assert earlier_tries(study.trials[1]) == [0]


def test_a_worker_that_was_silent_for_too_long_leaves_the_trial_to_the_one_that_took_it_over(opened, capsys):
    study, storage = opened

    def asleep(trial):
        if trial.number == 0:
            study.tell(trial.number, state=TrialState.FAIL)  # what others do after three missed heartbeats
            with storage.locked():
                other = claim(study, storage, 1, 0)
            study.tell(other, 0.9)
        return 0.1

    work(study, storage, 1, 0, asleep, Stop())
    assert [trial.value for trial in study.trials] == [None, 0.9]
    assert "another one took it over" in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("CUDA error after a sleep"), TakenOver(), ValueError("store lost")])
def test_a_trial_that_was_taken_over_stays_so_whatever_this_worker_meets(opened, error):
    study, storage = opened

    def asleep(trial):
        study.tell(trial.number, state=TrialState.FAIL)
        with storage.locked():
            study.tell(claim(study, storage, 1, 0), 0.9)
        raise error

    with suppress(ValueError):
        work(study, storage, 1, 0, asleep, Stop())
    assert [(trial.state.name, trial.value) for trial in study.trials] == [("FAIL", None), ("COMPLETE", 0.9)]


def test_what_follows_the_end_of_a_trial_follows_once_it_is_stored(opened):
    study, storage = opened
    seen = []
    work(study, storage, 2, 0, lambda trial: 0.5, Stop(), ended=lambda trial: seen.append(study.trials[trial.number]))
    assert [trial.state.name for trial in seen] == ["COMPLETE", "COMPLETE"]


def test_a_beating_trial_is_not_taken_for_dead(opened):
    study, storage = opened
    storage.backend.heartbeat_interval = 1
    taken = []

    def stale():
        return storage.backend._get_stale_trial_ids(study._study_id)

    def slow(trial):
        with storage.backend.engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = '2000-01-01 00:00:00.000000'"))
        until(lambda: not stale())
        with storage.locked():
            taken.append(claim(study, storage, 1, 0))
        return 0.1

    work(study, storage, 1, 0, slow, Stop())
    assert taken == [None]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]


def test_a_worker_stops_once_the_process_that_started_it_is_gone():
    assert not Stop(parent=os.getppid())()
    assert Stop(parent=1 if os.getppid() != 1 else 2)()


def test_the_second_ctrl_c_ends_at_once():
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_killed_workers_trial_is_run_again_once_from_its_checkpoint_and_in_its_own_run(tmp_path, folder, address):
    command = start(tmp_path, folder, *TWO, *MORTAL, "--storage", address, script=HELD)
    victim = until(lambda: running_past_an_epoch(address, workers=2), command)
    os.kill(worker_of(victim), signal.SIGKILL)
    let_go(tmp_path)
    said = finish(tmp_path, command)
    assert "was killed (SIGKILL)" in said
    assert_every_trial_ended_once(address, 2)
    (again,) = (trial for trial in trials(address) if earlier_tries(trial))
    assert earlier_tries(again) == [victim.number]
    assert again.params == victim.params
    store, runs = children(tmp_path)
    assert sorted(runs) == [0, 1]
    run = runs[victim.number]
    assert run.info.status == "FINISHED"
    assert steps(store, run, "val/AP50") == [2, 4, 6]
    assert steps(store, run, "train/loss") == list(range(1, 7))
    assert again.intermediate_values[1] == victim.intermediate_values[1]
    assert pictures(store, run)[2] == 0  # killed before they were drawn; the epoch was not validated a second time
    assert pictures(store, run)[4] == pictures(store, run)[6] > 0
    rows = (tmp_path / "search/results/s/trials.csv").read_text()
    assert "its worker died; went on as another try" in rows


def test_workers_whose_command_is_killed_end_their_epoch_and_the_same_command_goes_on(tmp_path, folder, address):
    command = start(tmp_path, folder, *TWO, "--storage", address, script=HELD)
    until(lambda: running_past_an_epoch(address, workers=2), command)
    pids = [worker_of(trial) for trial in trials(address)]
    command.kill()
    finish(tmp_path, command, code=-signal.SIGKILL)
    let_go(tmp_path)
    until(lambda: all(gone(pid) for pid in pids))
    assert TrialState.RUNNING not in {trial.state for trial in trials(address)}
    assert any(trial.user_attrs.get("interrupted") for trial in trials(address))
    finish(tmp_path, start(tmp_path, folder, *TWO, "--storage", address, script=HELD))
    assert_every_trial_ended_once(address, 2)


def test_ctrl_c_ends_the_epoch_marks_the_trial_and_the_same_command_goes_on(tmp_path, folder, address):
    command = start(tmp_path, folder, *TWO, "--storage", address, script=HELD)
    victim = until(lambda: running_past_an_epoch(address, workers=2), command)
    command.send_signal(signal.SIGINT)  # passes it on to both
    until(lambda: (tmp_path / "log").read_text().count("stopping after this epoch") == 2, command)
    let_go(tmp_path)
    finish(tmp_path, command, code=130)
    (stopped,) = (trial for trial in trials(address) if trial.number == victim.number)
    assert stopped.state == TrialState.FAIL
    assert stopped.user_attrs["interrupted"]
    _, runs = children(tmp_path)
    assert runs[victim.number].info.status == "KILLED"
    assert sorted(stopped.intermediate_values) == [1, 2]
    assert "stopped; the next call goes on with it" in (tmp_path / "search/results/s/trials.csv").read_text()
    finish(tmp_path, start(tmp_path, folder, *TWO, "--storage", address, script=HELD))
    assert_every_trial_ended_once(address, 2)
    store, runs = children(tmp_path)
    assert runs[victim.number].info.status == "FINISHED"
    assert steps(store, runs[victim.number], "val/AP50") == [2, 4, 6]
    assert json.loads((tmp_path / "search/results/s/best.json").read_text())["digest"]


def test_a_trial_without_enough_memory_fails_alone_with_its_cause(tmp_path, folder, address):
    changed = tmp_path / "search_of_its_own"
    shutil.copytree(SEARCH, changed, ignore=shutil.ignore_patterns("results", "__pycache__"))
    space = changed / "space.py"
    huge = 'fields["model.box_head"] = 10**8 if trial.number == 1 else 16\n    return fields'
    space.write_text(space.read_text().replace("return fields", huge, 1))
    command = start(
        *(tmp_path, folder, "--trials", "3", "--trial-epochs", "1", "--storage", address, "--yardsticks", "trials"),
        script=changed / "optuna_study.py",
        prefix=f"ulimit -v {16 * 2**20}",
    )
    said = finish(tmp_path, command)
    states = [trial.state.name for trial in trials(address)]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"], said
    assert "emory" in trials(address)[1].user_attrs["fail_reason"]
    _, runs = children(tmp_path)
    assert [runs[number].info.status for number in range(3)] == ["FINISHED", "FAILED", "FINISHED"]
    assert "emory" in runs[1].data.tags["failure"]
    assert ",FAIL,," in (tmp_path / "search/results/s/trials.csv").read_text()


def test_two_workers_on_sqlite_finish_a_study_and_its_finals_with_no_trial_lost_or_doubled(tmp_path, folder, address):
    few = ["--trials", "7", "--trial-epochs", "1", "--train.epochs", "1", "--finalists", "2", "--final-seeds", "2"]
    command = start(tmp_path, folder, *few, "--workers", "2", "--storage", address, script=HELD)
    until(lambda: running_past_an_epoch(address, workers=2), command)
    let_go(tmp_path)
    finish(tmp_path, command)
    assert_every_trial_ended_once(address, 7)
    assert [trial.number for trial in trials(address)] == list(range(7))
    assert len({tuple(trial.params.values()) for trial in trials(address)}) == 7
    (finals,) = (name for name in optuna.get_all_study_names(address) if name.startswith("s finals "))
    assert_every_trial_ended_once(address, 4, finals)
    assert len({trial.user_attrs["worker"] for trial in trials(address)}) == 2
    winner = json.loads((tmp_path / "search/results/s/best.json").read_text())
    assert winner["seeds"] == 2
    assert winner["low"] <= winner["value"] <= winner["high"]
    store, runs = children(tmp_path)
    assert sorted(runs) == list(range(7))
    states = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
    for trial in trials(address):
        run = runs[trial.number]
        assert run.info.status == states[trial.state.name]
        assert ("pruned" in run.data.tags) == (trial.state == TrialState.PRUNED)
        assert run.data.tags["mlflow.parentRunId"] == runs[0].data.tags["mlflow.parentRunId"]
    parent = store.get_run(runs[0].data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["study/refused_trials"] == sum(t.state == TrialState.PRUNED for t in trials(address))
