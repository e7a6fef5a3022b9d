"""`cellseg sample | inspect | predict | score | lint`: parse, choose, call, print."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from tyro.conf import Positional

from cellseg.command_line import user_errors_in_one_line

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sample:
    """Write a made-up data set in the competition's layout, with the truth of its test images."""

    folder: Positional[Path]
    train: int = 24
    """training images"""
    test: int = 6
    """test images"""
    seed: int = 0
    """the same seed gives the same bytes"""

    def run(self) -> int:
        """Write it."""
        from cellseg.sample import write

        write(self.folder, self.train, self.test, self.seed)
        print(f"{self.folder}: {self.train} training images, {self.test} test images, test_truth.json")
        return 0


@dataclass(frozen=True)
class Inspect:
    """Show what a data set looks like: images, cells, colours, and what anchors could find of it."""

    data: Positional[Path]
    """folder with train/, or a COCO json file"""
    json: bool = False
    """print JSON instead of a table"""
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"
    """colour order of the files"""

    def run(self) -> int:
        """Print it."""
        from cellseg.inspection import inspect

        found = inspect(self.data, self.channel_order)
        _print(found, as_json=self.json)
        return 0


@dataclass(frozen=True)
class Predict:
    """Find the cells of images with a checkpoint, and write them as COCO results.

    `torchrun --nproc-per-node N -m cellseg.cli predict ...` shares the images out to N processes, each with its GPU.
    """

    checkpoint: Positional[Path]
    """a best.pt of final_train.py"""
    images: Positional[tuple[Path, ...]]
    """image files; image n gets image_id n, counted from 1"""
    out: Path = Path("results.json")
    """the file to write"""
    point: Literal["pq", "ap"] = "pq"
    """pq: cells that do not overlap, over the tuned threshold; ap: all detections, for scoring"""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """colour order of the files"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""

    def run(self) -> int:
        """Predict and write; of several processes, each predicts its share and the first writes."""
        from cellseg.device import device_of
        from cellseg.distributed import gathered, joined, own_device, world
        from cellseg.json_files import write_json

        device = own_device(device_of(self.device))
        with joined(device):
            shares = gathered(self._found(device, *world()))
        if shares is None:
            return 0
        found = {image_id: cells for share in shares for image_id, cells in share.items()}
        results = [cell for image_id in sorted(found) for cell in found[image_id]]
        write_json(results, self.out)
        print(f"{self.out}: {len(results)} cells in {len(self.images)} images")
        return 0

    def _found(self, device: "torch.device", rank: int, processes: int) -> dict[int, list[dict[str, Any]]]:
        """By image id, the results of the images that this process predicts: every `processes`-th from `rank` on."""
        from tqdm import tqdm

        from cellseg.checkpoint import load_model
        from cellseg.overlaps import settled
        from cellseg.predict import predict
        from cellseg.slides import open_image

        model, checkpoint = load_model(self.checkpoint, device)
        config = checkpoint.config
        share = list(enumerate(self.images, start=1))[rank::processes]
        found = {}
        for image_id, path in tqdm(share, unit="image", disable=rank > 0 or not sys.stderr.isatty()):
            image = open_image(path, self.channel_order, config.dataset.color)
            cells = predict(model, [(image_id, image)], config.predict)
            found[image_id] = settled(cells, config.predict) if self.point == "pq" else cells
            print(f"{path}: {len(found[image_id])} cells", flush=True)
        return found


@dataclass(frozen=True)
class Score:
    """Score results against truth: mask AP at 100 detections and uncapped, per class, PQ, AJI and F1."""

    results: Positional[Path]
    """a list of COCO results as json, or a submission zip"""
    truth: Positional[Path]
    """a COCO json file"""
    json: bool = False
    """print JSON instead of a table"""
    threshold: float = 0.5
    """score under which a result does not count for PQ, AJI and F1"""

    def run(self) -> int:
        """Print it."""
        from cellseg.evaluate import score
        from cellseg.json_files import read_results, read_truth

        scores = score(read_truth(self.truth), read_results(self.results), self.threshold)
        _print({**scores.metrics, "per_class": scores.per_class}, as_json=self.json)
        return 0


@dataclass(frozen=True)
class Lint:
    """Check a submission the way a grader would trip over it."""

    submission: Positional[Path]
    """submission zip, or test-results.json"""
    ids: Positional[Path]
    """test_image_name_to_ids.json"""

    def run(self) -> int:
        """Print the problems; code 1 where there are any."""
        from cellseg.export import lint
        from cellseg.json_files import read_image_ids, read_results

        problems = lint(read_results(self.submission), read_image_ids(self.ids))
        print("\n".join(problems) or f"{self.submission}: no problem")
        return 1 if problems else 0


COMMANDS: dict[str, Callable[..., Any]] = {
    "sample": Sample,
    "inspect": Inspect,
    "predict": Predict,
    "score": Score,
    "lint": Lint,
}


@user_errors_in_one_line
def main() -> int:
    """Run the command that the arguments name."""
    chosen = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="cellseg", description=__doc__)
    code: int = chosen.run()
    return code


def _print(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=1))
        return
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for inner, each in value.items():
                print(f"  {inner:20} {_shown(each)}")
        else:
            print(f"{name:22} {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return "  ".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)


if __name__ == "__main__":
    main()
