"""The commands that train a network again."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from cellseg.command_line import flags_of
from cellseg.config import RunConfig

SCRIPT = "experiments/final_train.py"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Recorded:
    """What is known of a training."""

    config: RunConfig
    """with nothing left to the Plan"""
    data: Path
    commit: str
    """or "unknown\""""
    processes: int = 1
    in_folds: bool = False
    """it was `--folds` that trained config.dataset.folds networks, and the final one"""


def commands(recorded: Recorded) -> str:
    """Lines for a shell, in the root of the repository.

    No study's winner takes part: its settings, where there was one, are among the options.
    """
    options = flags_of(recorded.config)
    if recorded.in_folds:
        options = [each for each in options if each[0] not in ("--dataset.folds", "--dataset.fold")]
        options.append(["--folds", str(recorded.config.dataset.folds)])
    options += [["--data", str(recorded.data)], ["--studies", "none"]]
    runner = ["python"] if recorded.processes == 1 else ["torchrun", "--nproc-per-node", str(recorded.processes)]
    lines = [[*runner, SCRIPT, *options[0]], *options[1:]]
    checkout = [] if recorded.commit == UNKNOWN else [f"git checkout {recorded.commit}"]
    return "\n".join([*checkout, " \\\n    ".join(map(shlex.join, lines))])
