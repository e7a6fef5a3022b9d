"""Train in the processes that torchrun starts, and write down what an observer of each is told.

Arguments: a RunConfig as json, the data folder, the folder for checkpoints and <rank>.json; `stop` to stop after
an epoch, `resume` to go on.
"""

import json
import os
import sys
from pathlib import Path

import torch

from cellseg import model
from cellseg.config import DatasetConfig, RunConfig
from cellseg.config_fields import from_dict
from cellseg.dataset import open_dataset
from cellseg.distributed import joined, world
from cellseg.fingerprint import fingerprint, plan
from cellseg.train import fit

TRAIN, VALIDATION = [0, 1, 2], [3, 1, 0]


class Recorder:
    """Keeps what it is told."""

    def __init__(self):
        self.steps, self.metrics, self.results = [], [], []

    def step(self, metrics, step):
        self.steps.append(dict(metrics))

    def epoch(self, report):
        self.metrics.append(dict(report.metrics))
        self.results.append(list(report.results))
        return "stop" in sys.argv


def main():
    torch.set_num_threads(1)
    if os.environ.get("RANK", "0") != "0":
        model.load_pretrained = None  # weights are read, or fetched, once
    config = from_dict(RunConfig, json.loads(sys.argv[1]))
    data = open_dataset(Path(sys.argv[2]), DatasetConfig())
    folder = Path(sys.argv[3])
    found, recorder = plan(data, fingerprint(data, TRAIN), config), Recorder()
    with joined(torch.device("cpu")):
        fit(config, found, data, TRAIN, VALIDATION, folder, recorder, resume="resume" in sys.argv)
        rank = world()[0]
    (folder / f"{rank}.json").write_text(json.dumps(vars(recorder)))


if __name__ == "__main__":
    main()
