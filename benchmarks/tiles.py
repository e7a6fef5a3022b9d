"""Claim: a picture of any size in linear time and bounded memory, with the cells that it has as a whole.

Each picture is a tiled tif of made-up tissue, mirrored at its borders so that it is as large as wanted. A child process
predicts it streamed, so that its peak is its own; where memory allows, another takes the whole picture at once, with
caps raised by the ratio of the areas. Cells whose scores lie at the threshold are found or not by the least change of
what a network sees: `f1_of_two_wholes` tells how well the whole picture agrees with itself at a zoom higher by 1/1000,
and `f1_sure` counts as missed only cells over the threshold by SURE without a partner down to as much below it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile
from agreement import compared, f1
from memory import free_mb, memory_mb
from rows import Row, table

from cellseg.checkpoint import Checkpoint, load, load_model, save
from cellseg.config import PredictConfig
from cellseg.fingerprint import Plan, apply
from cellseg.model import build_model, state_of
from cellseg.predict import predict
from cellseg.recipes import demo
from cellseg.sample import MIXTURES, PIXELS_PER_CELL
from cellseg.slides import open_image
from cellseg.tissue import Scene, draw_slide, paint
from cellseg.whole_files import write_whole

CHECKPOINT = Path("demo/best.pt")
SIDES = (2048, 4096, 8192)
WHOLE_MB_PER_PIXEL = 0.6e-3
"""of a picture that is predicted at once, by the demo's network at its zoom"""
BLOCK_HW = (1000, 1100)


def rows(sides: Sequence[int], checkpoint: Path) -> list[Row]:
    """A row for each side of a picture in pixels: ours streams it in tiles, theirs is the same network on the whole."""
    loaded = load(checkpoint).config
    config, stride = loaded.predict, loaded.model.coarsest_stride
    found: list[Row] = []
    with TemporaryDirectory() as folder:
        for side in sides:
            path = Path(folder) / f"{side}.tif"
            write_picture(path, side)
            ours = in_child(checkpoint, path, "tiled")
            theirs = in_child(checkpoint, path, "whole") if fits(side) else None
            first = found[0] if found else None
            notes = compared(ours["results"], theirs["results"] if theirs else None, (side, side), config, stride)
            if theirs and not first:
                again = in_child(checkpoint, path, "again")
                notes["f1_of_two_wholes"] = f1(theirs["results"], again["results"], config, 0.0)
            growth = ours["seconds"] / first.ours_s / (side / first.size) ** 2 if first else 1.0
            found.append(
                Row(
                    "tiles",
                    side,
                    ours["seconds"],
                    theirs["seconds"] if theirs else None,
                    ours["mb"],
                    theirs["mb"] if theirs else None,
                    {**notes, "gb": ours["mb"] / 1000, "growth_per_pixel": growth},
                )
            )
            print(table(found[-1:]), file=sys.stderr, flush=True)
    return found


def trained(checkpoint: Path) -> Path:
    """A checkpoint that is there; exits with code 2 and one line where it is not."""
    if not checkpoint.exists():
        print(f"{checkpoint}: no such checkpoint; `make demo` trains one, or name one by --checkpoint", file=sys.stderr)
        sys.exit(2)
    return checkpoint


def untrained(path: Path) -> Path:
    """The checkpoint of a network that has learnt nothing and takes no time: for tests."""
    found = Plan("", ("a", "b", "c", "d"), "rgb", 1.0, 128, (8.0, 16.0, 32.0), (1.0,), 50, 20.0, 100, 96)
    config = apply(demo(), found)
    save(Checkpoint(state_of(build_model(config.model)), config, found, "", 0, {}, {}), path)
    return path


def write_picture(path: Path, side: int) -> None:
    """Tissue of the sample, mirrored at its borders, as a tiled tif."""
    rng = np.random.default_rng(0)
    cells = BLOCK_HW[0] * BLOCK_HW[1] / PIXELS_PER_CELL
    counts = [int(np.ceil(share * cells)) for share in np.mean(MIXTURES, axis=0)]
    block, _ = paint(Scene(BLOCK_HW, counts, draw_slide(rng)), rng)
    beyond = [(0, max(0, side - length)) for length in BLOCK_HW]
    picture = np.pad(block, [*beyond, (0, 0)], mode="symmetric")[:side, :side]
    tifffile.imwrite(path, picture, photometric="rgb", tile=(256, 256), compression="zlib", bigtiff=side > 20_000)


def fits(side: int) -> bool:
    """Whether two thirds of the free memory are enough for the whole picture at once."""
    return side * side * WHOLE_MB_PER_PIXEL < free_mb() * 2 / 3


def in_child(checkpoint: Path, path: Path, way: str) -> dict[str, Any]:
    """Seconds, MB beside the loaded model at the peak, and results of one way to predict, from a process of its own."""
    out = path.with_suffix(".json")
    command = [sys.executable, __file__, "--checkpoint", str(checkpoint), "--child", way, str(path), str(out)]
    subprocess.run(command, check=True)
    told: dict[str, Any] = json.loads(out.read_text())
    return told


def child(checkpoint: Path, way: str, path: Path, out: Path) -> None:
    """Predict a picture and write what it took."""
    model, loaded = load_model(checkpoint)
    config = loaded.config.predict
    predict(model, [(1, np.zeros((64, 64, 3), np.uint8))], config)  # loads code, which counts as memory too
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten: man 5 proc
    before, start = memory_mb("VmRSS"), time.perf_counter()
    image = open_image(path)
    if way != "tiled":
        config = whole_of(loaded, (image.shape[0], image.shape[1]))
    if way == "again":
        config = replace(config, zoom=(config.zoom or 1.0) * 1.001)
    results = predict(model, [(1, image)], config)
    told = {"seconds": time.perf_counter() - start, "mb": memory_mb("VmHWM") - before, "results": results}
    out.write_text(json.dumps(told))


def whole_of(loaded: Checkpoint, size_hw: tuple[int, int]) -> PredictConfig:
    """The config that takes an image at once, with the caps that its tiles have together."""
    config = loaded.config.predict
    scale = config.scale_of(size_hw)
    ratio = max(1.0, size_hw[0] * size_hw[1] * scale**2 / config.tile**2)
    detections = int(np.ceil((config.detections or 100) * ratio))
    return replace(config, tile=0, proposals=int(np.ceil(config.proposals * ratio)), detections=detections)


def main() -> None:
    """Measure, print a table, and write it where --out says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small picture: a test, not a figure")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the pictures, pixels")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="a best.pt")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    parser.add_argument("--child", nargs=3, metavar=("WAY", "PICTURE", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, path, out = arguments.child
        child(arguments.checkpoint, way, Path(path), Path(out))
        return
    with TemporaryDirectory() as folder:
        checkpoint = untrained(Path(folder) / "best.pt") if arguments.quick else trained(arguments.checkpoint)
        found = rows([400] if arguments.quick else arguments.sides, checkpoint)
    print(table(found))
    if arguments.out:
        write_whole(json.dumps([row.to_dict() for row in found], indent=1), arguments.out)


if __name__ == "__main__":
    main()
