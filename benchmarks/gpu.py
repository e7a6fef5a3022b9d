"""Training and inference on a GPU against torchvision's reference loop, and how long the GPU waits for data.

No part of `make bench`. `--device cpu --quick` runs all of it on a tiny network, to test it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import finish

import torch
from gpu_steps import inference, network, training
from loader import TINY, loader_of
from rows import Row
from step import our_losses, trained

from cellseg.config import RunConfig
from cellseg.config_fields import replaced
from cellseg.experiment import prepare
from cellseg.loader import Batch
from cellseg.optimizer import optimizer_of
from cellseg.recipes import RECIPES
from cellseg.sample import write

ANCHORS = {"model.anchor_sizes": [8.0, 16.0, 32.0, 64.0, 128.0], "model.aspect_ratios": [1.0]}
PLAIN = {"train.amp": False, "train.channels_last": False, "train.compile": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": PLAIN,
    "bf16": PLAIN | {"train.amp": True},
    "bf16, channels last": PLAIN | {"train.amp": True, "train.channels_last": True},
    "bf16, channels last, compiled": {"train.amp": True, "train.channels_last": True, "train.compile": True},
}
Run = Callable[[], object]


def main() -> None:
    """Measure each recipe and variant, print and write. Exit code 2 where the device is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny network, once: a test, not a figure")
    parser.add_argument(
        "--recipes", nargs="+", choices=("demo", "best"), default=["demo", "best"], help="by default both"
    )
    variants = f"{'; '.join(VARIANTS)}; by default all"
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT", help=variants
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu: expected a CUDA device, found none; try --device cpu --quick to test the script", file=sys.stderr)
        sys.exit(2)
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU")
    steps = 1 if arguments.quick else 20
    rows: list[Row] = []
    for name in ("demo",) if arguments.quick else arguments.recipes:
        for variant in arguments.variants[: 1 if arguments.quick else None]:
            config = config_of(name, VARIANTS[variant], arguments.quick)
            rows += [row_of(kind, config, device, steps, f"{name}, {variant}") for kind in (training, inference)]
        rows.append(waiting(config_of(name, VARIANTS["bf16, channels last"], arguments.quick), device, steps))
    finish(rows, arguments.out)


def config_of(name: str, fields: Mapping[str, Any], quick: bool) -> RunConfig:
    """The recipe with anchors, crop and caps of its own, from scratch."""
    config = replaced(RECIPES[name](), {"model.weights": "none", **fields, **(TINY if quick else {})})
    levels = ANCHORS["model.anchor_sizes"][: config.model.levels]
    sides = {"augment.crop": 64, "predict.tile": 64, "predict.overlap": 16} if quick else {}
    values = ANCHORS | {"model.anchor_sizes": levels, "predict.detections": 300, "predict.zoom": 1.0}
    return replaced(config, values | {"augment.crop": config.augment.crop or 512} | sides)


def row_of(
    kind: Callable[..., tuple[Run, Run, int]], config: RunConfig, device: torch.device, steps: int, variant: str
) -> Row:
    """Seconds an image and MB of ours and theirs, each with a network of its own."""
    torch.manual_seed(0)
    ours, theirs, images = kind(config, device)
    (ours_s, ours_mb), (theirs_s, theirs_mb) = (cost(run, device, steps) for run in (ours, theirs))
    notes = {"variant": f"{kind.__name__}, {variant}", "images_per_s": images / ours_s}
    notes["theirs_images_per_s"] = images / theirs_s
    return Row("gpu", images, ours_s / images, theirs_s / images, ours_mb, theirs_mb, notes)


def cost(run: Run, device: torch.device, steps: int) -> tuple[float, float | None]:
    """Seconds of one call, of many after a warm-up, and the peak of the device's memory in MB."""
    on_cuda = device.type == "cuda"
    for _ in range(min(steps, 3)):
        run()
    if on_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    for _ in range(steps):
        run()
    if on_cuda:
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / steps, torch.cuda.max_memory_allocated(device) / 1e6 if on_cuda else None


def waiting(config: RunConfig, device: torch.device, steps: int) -> Row:
    """How much longer a step takes with the loader in front than with a batch that is there already."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / "data", train=8 if steps > 1 else 2, test=0)
        whole = replaced(config, {"dataset.validation_fraction": 0.0, "train.steps_per_epoch": steps + 4})
        prepared = prepare(whole, Path(folder) / "data")
        model = network(prepared.config, device).train()
        optimizer = optimizer_of(model, config.train)
        batches = iter(loader_of(prepared))
        batch = next(batches)

        def step(batch: Batch) -> None:
            there = batch.to(device)
            trained(our_losses(model, there.images, there.targets), optimizer)

        alone, _ = cost(lambda: step(batch), device, steps)
        whole_s, mb = cost(lambda: step(next(batches)), device, steps)
    images = len(batch.images)
    share = max(0.0, 1 - alone / whole_s)
    notes = {"variant": f"with the loader, {config.recipe}", "images_per_s": images / whole_s, "share_waiting": share}
    return Row("gpu", images, whole_s / images, None, mb, None, notes)


if __name__ == "__main__":
    main()
