"""Predict the test images with the last final training on this data, and write the checked submission."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from cellseg.command_line import user_errors_in_one_line
from cellseg.config import PredictConfig, Recipe
from cellseg.data_folder import require_data
from cellseg.whole_files import require_place
from cellseg.wrong_options import parsed

ASKED = ("views", "zooms", "score_threshold", "box_nms")
"""options that change how the networks are asked"""


@dataclass(frozen=True)
class Options:
    """Options of the submission."""

    data: Path = Path("data")
    """folder with test_release/ and test_image_name_to_ids.json"""
    recipe: Recipe | None = None
    """take the last training of this recipe; by default the last of any"""
    seed: int | None = None
    """take the last training with this seed; by default the last of any"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    checkpoint: tuple[Path, ...] = ()
    """the best.pt to use, or several that predict together; by default that of the last final training on this data"""
    views: Literal[1, 2, 4, 8] | None = None
    """flips and quarter turns that each tile is seen in; by default those of the checkpoint's config"""
    zooms: tuple[float, ...] | None = None
    """factors on the zoom that each tile is seen at; by default those of the checkpoint's config"""
    score_threshold: float | None = None
    """least score of a result, 0..1; by default that of the checkpoint's config"""
    box_nms: float | None = None
    """IoU over which only the better of two boxes of a class stays, 0..1; by default that of the checkpoint's config"""
    runs: Path = Path("experiments/runs")
    """where final_train.py left its checkpoints"""
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"
    """colour order of the test files; auto takes that of the training data"""
    out: Path = Path("submission.zip")
    """the zip to write; test-results.json lies in it"""


@user_errors_in_one_line
def main() -> int:
    """Predict and write; print what the submission holds."""
    options = parsed(lambda: tyro.cli(Options, description=__doc__))
    given = {name: value for name in ASKED if (value := getattr(options, name)) is not None}
    replace(PredictConfig(), **given)  # what cannot be is refused before anything is read
    require_place(options.out)
    require_data(options.data)
    from tqdm import tqdm

    from cellseg.checkpoint import load_ensemble
    from cellseg.dataset import test_images
    from cellseg.device import device_of
    from cellseg.export import write_submission
    from cellseg.predict import predict
    from cellseg.slides import open_image

    paths = options.checkpoint or (_last_checkpoint(options),)
    images = test_images(options.data)
    ensemble, checkpoint = load_ensemble(paths, device_of(options.device))
    order = checkpoint.plan.channel_order if options.channel_order == "auto" else options.channel_order
    print(
        f"checkpoint {paths[0]} (epoch {checkpoint.epoch}), {len(images)} images, files read as {order}",
        *(f"with {path}, under the predict config of {paths[0]}" for path in paths[1:]),
        sep="\n",
        file=sys.stderr,
    )
    config = replace(checkpoint.config.predict, **given)
    if doubt := ensemble.doubt(config):
        print(doubt, file=sys.stderr)
    shown = tqdm(images, desc="predict", unit="image", disable=not sys.stderr.isatty())
    read = ((each.image_id, open_image(each.path, order, checkpoint.config.dataset.color)) for each in shown)
    results = predict(ensemble, read, config)
    listed = [
        {"file_name": each.file_name, "id": each.image_id, "height": each.size_hw[0], "width": each.size_hw[1]}
        for each in images
    ]
    summary = write_submission(results, listed, options.out, len(checkpoint.plan.class_names))
    for name, count in zip(checkpoint.plan.class_names, summary.per_class.values(), strict=True):
        print(f"{name:12} {count:7,} cells")
    print(f"without any cell: {', '.join(summary.images_without_cells) or 'no image'}")
    print(f"submission {options.out}: {summary.total:,} results, {summary.bytes / 1e6:.1f} MB")
    return 0


def _last_checkpoint(options: Options) -> Path:
    from cellseg.config import DatasetConfig
    from cellseg.dataset import open_dataset
    from cellseg.experiment import last_checkpoint

    digest = open_dataset(options.data, DatasetConfig()).digest
    return last_checkpoint(digest, options.runs, recipe=options.recipe, seed=options.seed)


if __name__ == "__main__":
    main()
