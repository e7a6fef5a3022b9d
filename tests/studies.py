"""A study small enough for a test: real processes, a real storage, four images of squares."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import optuna
import psutil
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from storage import locked

ROOT = Path(__file__).parents[1]
SEARCH = ROOT / "search"
HELD = ROOT / "tests/held.py"
"""a study's command whose trials wait after their first epoch: see `let_go`"""
TINY = [
    *("--recipe", "demo", "--device", "cpu", "--augment.crop", "64", "--train.steps-per-epoch", "2"),
    *("--model.stages", "2", "--model.fpn-channels", "16", "--model.box-head", "16", "--model.mask-channels", "8"),
    *("--predict.zoom", "1", "--predict.detections", "20", "--predict.proposals", "60", "--predict.tile", "128"),
    *("--predict.overlap", "32", "--augment.color-jitter", "0", "--augment.stain-jitter", "0"),
    *("--study", "s", "--pruner", "none", "--finalists", "0", "--yardsticks", "gated", "--subset", "1"),
]
MORTAL = ("--heartbeat", "2")
"""where workers are killed: soon enough for others to go on with the trial, and not so soon that a slow one loses it"""
PATIENCE = 240
"""seconds after which a test gives up waiting"""


def start(folder, data, *arguments, script=SEARCH / "optuna_study.py", prefix=""):
    """A study's command as a process of its own, run in a folder, its output in <folder>/log."""
    command = [sys.executable, str(script), "--data", str(data), *TINY, *map(str, arguments)]
    log = (folder / "log").open("a")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    if prefix:
        command = ["bash", "-c", f'{prefix}; exec "$@"', "bash", *command]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment)


def finish(folder, process, code=0):
    """What a command printed, once it has ended with this code."""
    ended = process.wait(PATIENCE)
    said = (folder / "log").read_text()
    assert ended == code, said
    return said


def trials(address, name="s"):
    """The trials of a study, empty while it is not there."""
    with locked(address):  # else another may be making its tables
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
        if not sqlalchemy.inspect(engine).has_table("alembic_version"):  # the last that is made: to look is to make it
            return []
        storage = RDBStorage(address, engine_kwargs={"poolclass": sqlalchemy.NullPool})  # a pool keeps its connections
    with suppress(KeyError):
        return optuna.load_study(study_name=name, storage=storage).get_trials()
    return []


def until(what, *processes):
    """The first truthy answer of a call, while the processes run."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := what():
            return found
        assert all(process.poll() is None for process in processes), "the command ended before that"
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def running_past_an_epoch(address, workers=1):
    """A running trial that has reported its first epoch, once so many workers have claimed one; None before."""
    claimed = [trial for trial in trials(address) if "worker" in trial.user_attrs]
    running = [trial for trial in claimed if trial.state == TrialState.RUNNING and trial.intermediate_values]
    return next(iter(running), None) if len({worker_of(trial) for trial in claimed}) >= workers else None


def let_go(*folders):
    """Let the trials of HELD commands go on, those of their later calls too."""
    for folder in folders:
        (folder / "go").touch()


def worker_of(trial):
    """The process that runs a trial."""
    return int(trial.user_attrs["worker"].split(":")[1])


def gone(pid):
    """Whether a process has ended; an orphan that nobody asks for its exit code stays as a zombie."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True
