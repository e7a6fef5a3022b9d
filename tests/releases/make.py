"""Keep a small project as this version leaves it, for the tests of all later ones: `python tests/releases/make.py`.

To be run once for each version that raises a FORMAT, before it is released; it writes tests/releases/<version>.tar.xz:
data/, the checkpoints of a training that has an epoch to go, and a study of three trials with its results. The body
of the networks is made of three numbers and is not trained, so that the archive stays small.
"""

import contextlib
import lzma
import os
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded; more threads slow so small a network down

import torch
from scripts import ROOT, run
from squares import write_squares
from torchvision.models import resnet18

from cellseg.config import AugmentConfig, DatasetConfig, ModelConfig, PredictConfig, RunConfig, TrainConfig
from cellseg.experiment import prepare
from cellseg.train import fit

KEPT = ("data", "training", "optuna.db", "search/results")
BODY = "body.pt"
CONFIG = RunConfig(
    recipe="demo",
    device="cpu",
    dataset=DatasetConfig(workers=0),
    augment=AugmentConfig(crop=64, zoom_jitter=1.0, color_jitter=0.0, stain_jitter=0.0, blur=0.0, noise=0.0),
    model=ModelConfig(
        backbone="resnet18",
        stages=1,
        weights=BODY,
        trainable_stages=1,
        fpn_channels=8,
        box_head=8,
        mask_channels=(4,),
        anchor_sizes=(8.0, 16.0),
        aspect_ratios=(1.0,),
        rpn_pre_nms=60,
        rpn_post_nms=40,
        rpn_batch=32,
        roi_batch=16,
        roi_positive_fraction=0.5,
    ),
    train=TrainConfig(learning_rate=1e-2, epochs=4, steps_per_epoch=30, batch=2, ema_decay=0.9, amp=False),
    predict=PredictConfig(zoom=1.0, tile=128, overlap=32, proposals=60, detections=20),
)
STUDY = [
    *("--data", "data", "--recipe", "demo", "--device", "cpu", "--dataset.workers", "0", "--subset", "1"),
    *("--augment.crop", "64", "--augment.color-jitter", "0", "--augment.stain-jitter", "0", "--train.no-amp"),
    *("--train.steps-per-epoch", "2", "--train.batch", "1", "--train.epochs", "1", "--trial-epochs", "1"),
    *("--model.stages", "2", "--model.fpn-channels", "8", "--model.box-head", "8", "--model.mask-channels", "4"),
    *("--predict.zoom", "1", "--predict.tile", "128", "--predict.overlap", "32", "--predict.proposals", "60"),
    *("--predict.detections", "20", "--study", "kept", "--yardsticks", "gated", "--workers", "1"),
    *("--finalists", "1", "--final-seeds", "1"),
]


class OneToGo:
    """An observer that stops a training before its last epoch."""

    def step(self, metrics, step):
        """Nothing to do."""

    def epoch(self, report):
        """Whether this was the last but one."""
        print(f"epoch {report.epoch}: {report.metrics.get('val/AP50', 0):.3f}")
        return report.epoch == CONFIG.train.epochs - 1


def make(folder):
    """Write the project of KEPT into a folder."""
    write_squares(folder / "data")
    torch.save(body(), folder / BODY)
    with contextlib.chdir(folder):
        found = prepare(CONFIG, Path("data"))
        fit(found.config, found.plan, found.data, found.train, found.validation, Path("training"), OneToGo())
    print(run(folder, ROOT / "search/optuna_study.py", *STUDY, "--trials", "3"))
    summary = folder / "search/results/kept/study.md"
    summary.write_text(summary.read_text().replace(f"{ROOT}/", ""))  # as it is called from the checkout


def body():
    """The state of a random ResNet whose filters are of three numbers: minus something, 0, and plus something."""
    torch.manual_seed(0)
    state = resnet18().state_dict()
    for name, tensor in state.items():
        if tensor.dim() == 4:
            strong = tensor.abs() > tensor.std() / 2
            state[name] = tensor.sign() * strong * tensor[strong].abs().mean()
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def main():
    """Make the project and pack it."""
    path = Path(__file__).with_name(f"{version('cellseg')}.tar.xz")
    with TemporaryDirectory() as made:
        folder = Path(made)
        make(folder)
        with (
            lzma.open(path, "wb", preset=9 | lzma.PRESET_EXTREME) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for name in KEPT:
                tar.add(folder / name, name)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
