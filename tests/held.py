"""A study's command, in whose folder no trial goes on after its first epoch before a file `go` is there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
import optuna_study
from studies import until
from watcher import Watcher

told = Watcher.epoch


def epoch(watcher, report):
    """What the trial's own watcher answers, once the test lets it go on."""
    answer = told(watcher, report)
    until(Path("go").exists)
    return answer


if __name__ == "__main__":
    Watcher.epoch = epoch
    sys.exit(optuna_study.main())  # its workers have this command line, and are held too
