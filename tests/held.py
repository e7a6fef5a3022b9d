"""A study's command, in whose folder no trial goes on after its first epoch before a file `go` is there."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
from studies import SEARCH, until
from watcher import Watcher

told = Watcher.epoch


def epoch(watcher, report):
    """What the trial's own watcher answers, once the test lets it go on."""
    answer = told(watcher, report)
    until(Path("go").exists)
    return answer


if __name__ == "__main__":
    Watcher.epoch = epoch
    runpy.run_path(str(SEARCH / "optuna_study.py"), run_name="__main__")
