"""Claim: how fast training views are made, and how long a training step waits for them. Nobody is measured against.

Memory is not measured: it is the data set's, and the workers' processes have their own.
"""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import finish, options

import numpy as np
import torch
from rows import Row
from step import our_losses, trained
from torch.utils.data import DataLoader

from cellseg.config_fields import replaced
from cellseg.experiment import Prepared, prepare
from cellseg.loader import Batch, training_loader
from cellseg.model import build_model
from cellseg.recipes import RECIPES
from cellseg.sample import write

SHARED = Path(__file__).parents[2] / "shared" / "data" / "consep"
WORKERS = (0, 2)
VIEWS = 64
STEPS = {"demo": 10, "best": 2}
"""of a training; the network of `best` takes seconds a step on a CPU"""
TINY = {"model.backbone": "resnet18", "model.fpn_channels": 16, "model.box_head": 16, "model.mask_channels": [8]}


def rows(quick: bool) -> list[Row]:
    """A row for each recipe and number of workers."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        if SHARED.is_dir() and not quick:
            shutil.copytree(SHARED, root)
        else:
            write(root, train=2 if quick else 8, test=0)
        return [
            row_of_recipe(name, workers, root, quick)
            for name in (("demo",) if quick else tuple(STEPS))
            for workers in ((0,) if quick else WORKERS)
        ]


def row_of_recipe(name: str, workers: int, root: Path, quick: bool) -> Row:
    """Seconds an image of the loader alone; in the notes, what a training step waits for it."""
    settings = {"model.weights": "none", "dataset.workers": workers, "dataset.validation_fraction": 0.0}
    config = replaced(RECIPES[name](), settings | (TINY if quick else {}))
    config = replaced(config, {"train.steps_per_epoch": 2 if quick else VIEWS // config.train.batch})
    prepared = prepare(config, root)
    seconds, images = drained(prepared)
    waited = share_waited(prepared, 1 if quick else STEPS[name])
    notes = {"variant": name, "images_per_s": images / seconds, "share_of_step_waiting": waited}
    return Row("loader", workers, seconds / images, None, None, None, notes)


def drained(prepared: Prepared) -> tuple[float, int]:
    """Seconds and images of one epoch of the loader, without any training and the start of its workers."""
    batches = iter(loader_of(prepared))
    next(batches)
    start = time.perf_counter()
    images = sum(len(batch.images) for batch in batches)
    return time.perf_counter() - start, images


def share_waited(prepared: Prepared, steps: int) -> float:
    """Seconds in next(loader) over seconds of the steps."""
    model = build_model(prepared.config.model).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-5)
    batches = iter(loader_of(prepared))
    waited = 0.0
    start = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        trained(our_losses(model, batch.images, batch.targets), optimizer)
    return waited / (time.perf_counter() - start)


def loader_of(prepared: Prepared) -> DataLoader[Batch]:
    """The loader that a training has, showing each image equally often."""
    return training_loader(prepared.data, prepared.train, np.ones(len(prepared.train)), prepared.config)


if __name__ == "__main__":
    arguments = options("Measure the claim 'loader' of benchmarks/claims.py.")
    finish(rows(arguments.quick), arguments.out)
