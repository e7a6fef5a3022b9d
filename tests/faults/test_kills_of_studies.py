"""A study that is killed, wherever that is, and called again ends with every trial finished once, in MLflow too."""

import random
import shutil
import signal
import time
from contextlib import suppress

import psutil
import pytest
from commands import ALL, ended, start, warm_up
from mlflow import MlflowClient
from optuna.trial import TrialState
from studies import MORTAL, TINY, trials, until, worker_of
from study import earlier_tries
from test_workers import assert_every_trial_ended_once, steps

from cellseg.whole_files import PARTIAL

TRIALS, EPOCHS = 16, 3
STUDY = [
    *(*TINY, *MORTAL, "--trials", str(TRIALS), "--trial-epochs", str(EPOCHS), "--train.epochs", str(EPOCHS)),
    *("--yardsticks", "trials"),  # so that three trials at least are trained; most of the others are refused
]
TIMES = 4
"""kills of one study; a trial that is killed six times is given up"""
PLACES = {
    "beginning": [
        ("optuna:Study.set_user_attr", 2),
        ("mlflow:MlflowClient.create_run", 1),
        ("optuna:Study.enqueue_trial", 1),
        ("optuna:Trial.set_user_attr", 1),  # a trial is claimed, but does not say yet by whom
    ],
    "trial": [
        ("cellseg.open_run:Run.json", 2),
        ("torch:save", 1),
        ("optuna:Trial.report", 2),
        ("cellseg.open_run:Run.artifact", 1),
    ],
    "end of a trial": [
        ("mlflow:MlflowClient.set_terminated", 1),
        ("optuna:Study.tell", 1),
        ("ladder:empty_folder", 1),
        ("cellseg.open_run:Run.end_as", 1),  # of one that is refused
    ],
    "report": [
        ("study_report:summary", 1),
        ("pathlib:Path.replace", 3),
        ("cellseg.open_run:Run.artifact", 2),
        ("cellseg.open_run:Run.figure", 1),
    ],
}
ENDS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}
pytestmark = [
    pytest.mark.skipif(not ALL, reason="`make faults` kills studies"),
    pytest.mark.usefixtures("no_server"),
]


@pytest.fixture(scope="module")
def seconds(folder, store, tmp_path_factory):
    """How long a study takes that is never killed."""
    place = tmp_path_factory.mktemp("whole")
    shutil.copy(store, place)
    warm_up()
    begun = time.monotonic()
    assert ended(search(place, folder)) == 0, (place / "log").read_text()
    assert_every_trial_is_finished_once(place)
    return time.monotonic() - begun


def search(place, data, *arguments, **fatal):
    """The command that begins a study, or goes on with it."""
    return start(place, "search/optuna_study.py", "--data", data, *STUDY, *arguments, log=place / "log", **fatal)


def address_in(place):
    return f"sqlite:///{place / 'optuna.db'}"


def assert_every_trial_is_finished_once(place):
    """By Optuna, by MLflow, and by the files."""
    assert_every_trial_ended_once(address_in(place), TRIALS)
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("cellseg-search").experiment_id])
    (study,) = (run for run in runs if run.data.tags.get("kind") == "study")
    assert study.info.status == "FINISHED"
    for trial in trials(address_in(place)):
        if trial.state in ENDS:
            first, *_ = [*earlier_tries(trial), trial.number]
            assert_logged_once(client, trial, [run for run in runs if run.data.tags.get("trial") == str(first)])
    assert not [path for path in place.rglob(".*") if PARTIAL.fullmatch(path.name)]
    assert not list((place / "search/runs").rglob("*.pt"))
    files = sorted(path.name for path in (place / "search/results/s").iterdir())
    assert files == ["best.json", "finals.csv", "study.md", "trials.csv"]


def assert_logged_once(client, trial, runs):
    """A trial's run has ended as the trial has; another was killed before it had a folder, and says that it is lost."""
    by_id = {run.info.run_id: run for run in runs}
    run = by_id.pop(trial.user_attrs["run_id"])
    assert run.info.status == ENDS[trial.state]
    if trial.state == TrialState.COMPLETE:
        assert steps(client, run, "val/AP50") == [2, 4, 6]
        assert steps(client, run, "train/loss") == [1, 2, 3, 4, 5, 6]
        assert run.data.metrics["best/AP50"] == trial.value
    for lost in by_id.values():
        assert (lost.info.status, lost.data.metrics) == ("FAILED", {})
        assert "its worker died" in lost.data.tags["failure"]


@pytest.mark.parametrize("when", PLACES)
def test_a_study_that_is_killed_at_four_places_ends_with_every_trial_finished_once(folder, place, when):
    for fatal, call in PLACES[when]:
        killed = ended(search(place, folder, fatal=fatal, call=call))
        assert killed == -signal.SIGKILL, f"{fatal} {call}: {(place / 'log').read_text()}"
    assert ended(search(place, folder)) == 0, (place / "log").read_text()
    assert_every_trial_is_finished_once(place)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_that_is_killed_at_four_moments_ends_with_every_trial_finished_once(folder, place, seconds, workers):
    moments = random.Random(workers)
    for _ in range(TIMES):
        process = search(place, folder, "--workers", workers)
        until(lambda process=process: has_a_trial(process, address_in(place)))
        time.sleep(moments.uniform(0, seconds / TRIALS))
        for each in family(process):
            with suppress(psutil.NoSuchProcess):  # one that it started for a moment
                each.kill()
        assert ended(process) == -signal.SIGKILL
    assert ended(search(place, folder, "--workers", workers)) == 0, (place / "log").read_text()
    assert_every_trial_is_finished_once(place)


def has_a_trial(process, address):
    """Whether a command, or a worker of it, runs a trial."""
    pids = {each.pid for each in family(process)}
    running = (trial for trial in trials(address) if trial.state == TrialState.RUNNING and "worker" in trial.user_attrs)
    return any(worker_of(trial) in pids for trial in running)


def family(process):
    """A process and all that it has started."""
    itself = psutil.Process(process.pid)
    return [itself, *itself.children(recursive=True)]
