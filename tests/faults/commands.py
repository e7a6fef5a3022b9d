"""Scripts in processes of their own, forked from a server that has loaded torch and MLflow, and faults in them."""

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["cellseg.folds", "cellseg.tracking", "cellseg.fine_tune", "cellseg.export"])


def kill(fatal, arguments):
    """End this process as `kill -9` does; a file that torch saves is then half written."""
    if fatal == "torch:save":
        arguments[1].write(b"half a checkpoint")
        arguments[1].flush()
    os.kill(os.getpid(), signal.SIGKILL)


def start(folder, script, *arguments, log, before=None, fatal=None, call=1, fault=kill):
    """A process that runs a script in a folder, after `before`; a fault befalls it at call number `call` of `fatal`."""
    target = (folder, ROOT / script, arguments, log, before, fatal, call, fault)
    process = CONTEXT.Process(target=_run, args=target)
    process.start()
    return process


def ended(process, seconds=240):
    """The exit code of a process; negative where a signal ended it."""
    process.join(seconds)
    assert process.exitcode is not None, f"it did not end within {seconds} s"
    return process.exitcode


def _run(folder, script, arguments, log, before, fatal, call, fault):
    os.chdir(folder)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if before:
        before()
    if fatal:
        _arm(fatal, call, fault)
    sys.argv = [str(script), *map(str, arguments)]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def _arm(fatal, call, fault):
    """Replace a function, such as "torch:save", by one that a fault befalls."""
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
