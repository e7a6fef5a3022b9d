"""A training of ours by several processes of this machine: `torchrun together.py RECIPE DATA …` is one of them.

On a CPU the operations of a small network are too short for several threads; processes use the cores.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contestants import Ours, Trained, ours
from pace import Tell

from cellseg.command_line import user_errors_in_one_line
from cellseg.device import device_of
from cellseg.distributed import joined, own_device, world
from cellseg.experiment import Prepared

RATE = "rate.txt"


@dataclass(frozen=True)
class Together:
    """A recipe of ours, trained by several processes, each with a batch of its own."""

    alone: Ours
    name: str
    processes: int

    @property
    def prepared(self) -> Prepared:
        """That of a process alone."""
        return self.alone.prepared

    def settings(self) -> Mapping[str, Any]:
        """Those of a process alone, and how many there are."""
        return {**self.alone.settings(), "processes": self.processes}

    def step_seconds(self) -> float:
        """Median seconds of a step of all."""
        with TemporaryDirectory() as folder:
            self._call(Path(folder), lambda text: None)
            return float((Path(folder) / RATE).read_text())

    def train(self, steps: int, seed: int, folder: Path, tell: Tell) -> Trained:
        """Train in all processes, and predict in this one."""
        folder.mkdir(parents=True, exist_ok=True)
        self._call(folder, tell, "--steps", str(steps), "--seed", str(seed))
        return self.alone.outcome(steps, folder)

    def _call(self, folder: Path, tell: Tell, *more: str) -> None:
        config = self.prepared.config
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        command += [__file__, self.name, str(self.prepared.root), str(folder), *more]
        command += ["--device", config.device, "--split-seed", str(config.dataset.split_seed)]
        threads = max(1, (os.cpu_count() or 1) // self.processes)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
            for line in running.stdout or ():
                tell(line.rstrip())
        if running.returncode:
            raise ValueError(f"{self.name}: {self.processes} processes ended with {running.returncode}; see above")


@user_errors_in_one_line
def main() -> int:
    """Train as one of the processes that torchrun started, or measure the rate; the first one tells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, help="of the training; without, some are timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--split-seed", type=int, default=0)
    options = parser.parse_args()
    entry = ours(options.recipe, options.data, options.device, options.split_seed)
    with joined(own_device(device_of(options.device))):
        first = world()[0] == 0
        if options.steps:
            entry.fit(
                options.steps, options.seed, options.folder, lambda text: print(text, flush=True) if first else None
            )
        else:
            seconds = entry.step_seconds()
            if first:
                (options.folder / RATE).write_text(str(seconds))
    return 0


if __name__ == "__main__":
    main()
