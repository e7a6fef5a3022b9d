"""How far apart trainings with one seed end: the demo's network, twice without data workers and once with two.

No part of `make bench`. On a CPU nothing may differ, not a bit; on CUDA sums are added in an order of their own.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from loader import TINY
from torch import Tensor

from cellseg.checkpoint import load
from cellseg.config_fields import replaced
from cellseg.experiment import Silent, prepare
from cellseg.recipes import RECIPES
from cellseg.sample import write
from cellseg.train import BEST_BY, fit

TRAININGS = {"first": 0, "again": 0, "with two workers": 2}
"""data workers of each"""


def main() -> None:
    """Train, compare, print. Exit code 1 where trainings on the CPU differ, 2 where the device is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a tiny network for two steps: a test, not a figure")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("same_seed: expected a CUDA device, found none; try --device cpu", file=sys.stderr)
        sys.exit(2)
    steps = 2 if arguments.quick else arguments.steps
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "data", train=2 if arguments.quick else 8, test=0)
        ends = {
            name: trained(root, name, workers, arguments.device, steps, arguments.quick)
            for name, workers in TRAININGS.items()
        }
    differ = False
    first, score = ends.pop("first")
    print(f"{steps} steps on {arguments.device}, seed 0: AP50 {score:.4f}")
    for name, (weights, its_score) in ends.items():
        apart = spread(first, weights)
        differ |= apart > 0
        print(f"{name}: AP50 {its_score:.4f}, weights apart by {apart:.2g} of their tensor's largest at most")
    sys.exit(int(differ and arguments.device == "cpu"))


def trained(
    root: Path, name: str, workers: int, device: str, steps: int, quick: bool
) -> tuple[Mapping[str, Tensor], float]:
    """Weights and AP50 of the network at the end of a training."""
    settings = {"model.weights": "none", "dataset.workers": workers, "train.epochs": 1, "train.steps_per_epoch": steps}
    config = replaced(RECIPES["demo"](), settings | (TINY if quick else {}))
    prepared = prepare(replace(config, device=device), root / "data")
    best = fit(
        prepared.config,
        prepared.plan,
        prepared.data,
        prepared.train,
        prepared.validation,
        root / name,
        Silent(),
    )
    end = load(best)
    return end.model, end.metrics[BEST_BY]


def spread(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The largest difference of two weights, as a share of the largest weight of their tensor."""
    return max(
        float((tensor.double() - second[name].double()).abs().max() / tensor.double().abs().max().clamp(min=1e-12))
        for name, tensor in first.items()
    )


if __name__ == "__main__":
    main()
