"""Scripts in processes of their own, forked from a server that has loaded torch and MLflow; and how to kill them."""

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


def warm_up():
    """Start the server, which takes longer than what is forked from it."""
    process = CONTEXT.Process(target=int)
    process.start()
    assert ended(process) == 0


def start(folder, script, *arguments, log, fatal=None, call=1):
    """A process that runs a script, or `cellseg`, in a folder; it kills itself at call number `call` of `fatal`."""
    process = CONTEXT.Process(target=_run, args=(folder, script, arguments, log, fatal, call))
    process.start()
    return process


def ended(process, seconds=240):
    """The exit code of a process; negative where a signal ended it."""
    process.join(seconds)
    assert process.exitcode is not None, f"it did not end within {seconds} s"
    return process.exitcode


def ended_or_killed(process, seconds):
    """The exit code of a process, which is killed if it has not ended by then."""
    process.join(seconds)
    process.kill()
    return ended(process)


def _run(folder, script, arguments, log, fatal, call):
    os.chdir(folder)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if fatal:
        _arm(fatal, call)
    path = ROOT / script
    sys.argv = [str(path), *map(str, arguments)]
    if script == "cellseg":
        runpy.run_module("cellseg", run_name="__main__")
    else:
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")


def _arm(fatal, call):
    """Replace a function, such as "torch:save", by one that ends this process as `kill -9` does."""
    module, _, name = fatal.partition(":")
    owner = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), []

    def counted(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            if fatal == "torch:save":  # in the middle of the file
                arguments[1].write(b"half a checkpoint")
                arguments[1].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, last, counted)
