"""Scripts, called as a user calls them, and the options that make a network too small to be good."""

import contextlib
import io
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SMALL = [
    *("--recipe", "demo", "--augment.crop", "64", "--train.epochs", "2", "--train.steps-per-epoch", "2"),
    *("--model.fpn-channels", "16", "--model.box-head", "16", "--model.mask-channels", "8", "--predict.zoom", "1"),
    *("--predict.detections", "60", "--predict.proposals", "100"),
]


def run(folder, script, *arguments, code=0):
    """What a script, or `cellseg`, printed; run in a folder as the project's root, within this process.

    Loading torch and MLflow takes longer than all that these tests do with them.
    """
    said = io.StringIO()
    saved = sys.argv, sys.path[:]
    sys.argv = [str(script), *map(str, arguments)]
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            ended = exit_code(script)
    finally:
        sys.argv, sys.path[:] = saved
    assert ended == code, said.getvalue()
    return said.getvalue()


def exit_code(script):
    """The code that a script leaves with."""
    try:
        if script == "cellseg":
            runpy.run_module("cellseg", run_name="__main__")
        else:
            sys.path.insert(0, str(script.parent))
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


def run_process(folder, *command, code=0):
    """What a Python command printed, run in a folder as a process of its own."""
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
