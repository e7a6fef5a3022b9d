"""Scripts in processes of their own, forked from a server that has loaded torch, and faults that befall them."""

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
ALL = bool(os.environ.get("CELLSEG_FAULTS"))
"""whether all scenarios are wanted, by `make faults`, and not only the quick ones"""
PATIENCE = 240
"""seconds after which a test gives up waiting"""
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["cellseg.folds", "cellseg.tracking", "cellseg.fine_tune", "cellseg.export"])


def kill(fatal, arguments):
    """End this process as `kill -9` does; a file that torch saves is then half written."""
    if fatal == "torch:save":
        arguments[1].write(b"half a checkpoint")
        arguments[1].flush()
    os.kill(os.getpid(), signal.SIGKILL)


def kill_all():
    """End what a test that failed has left running, or stopped: Python would wait for it at its own end."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def warm_up():
    """Start the server, which takes longer than what is forked from it."""
    process = CONTEXT.Process(target=int)
    process.start()
    assert ended(process) == 0


def start(folder, script, *arguments, log, environment=None, before=None, fatal=None, call=1, fault=kill):
    """A process that runs a script, or `cellseg`, in a folder, after `before`.

    A fault befalls it at call number `call` of `fatal`, a function such as "torch:save".
    """
    target = (folder, script, arguments, log, environment or {}, before, fatal, call, fault)
    process = CONTEXT.Process(target=_run, args=target)
    process.start()
    return process


def ended(process, seconds=PATIENCE):
    """The exit code of a process; negative where a signal ended it."""
    process.join(seconds)
    assert process.exitcode is not None, f"it did not end within {seconds} s"
    return process.exitcode


def paused(process):
    """Wait until a process has stopped itself, as mishaps.pause does."""
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, process)


def until(what, process):
    """The first truthy answer of a call, while the process runs."""
    limit = time.monotonic() + PATIENCE
    while not (found := what()):
        assert process.exitcode is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    return found


def ended_or_killed(process, seconds):
    """The exit code of a process, which is killed if it has not ended by then."""
    process.join(seconds)
    process.kill()
    return ended(process)


def _run(folder, script, arguments, log, environment, before, fatal, call, fault):
    os.chdir(folder)
    os.environ.update({"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "3600", **environment})  # no thread calls MLflow
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if before:
        before()
    if fatal:
        _arm(fatal, call, fault)
    path = ROOT / script
    sys.argv = [str(path), *map(str, arguments)]
    if script == "cellseg":
        runpy.run_module("cellseg", run_name="__main__")
    else:
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")


def _arm(fatal, call, fault):
    """Replace a function by one that a fault befalls."""
    module, _, name = fatal.partition(":")
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), []

    def counted(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            fault(fatal, arguments)
        return original(*arguments, **options)

    setattr(owner, last, counted)
