"""Checkpoints: tensors and plain values, written whole or not at all, read without unpickling objects."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellseg.config import RunConfig
from cellseg.config_fields import from_dict, to_dict
from cellseg.ensemble import Ensemble
from cellseg.fingerprint import Plan
from cellseg.model import CellRCNN, build_model, place
from cellseg.scale import relative_zoom
from cellseg.tensor_files import read_tensors
from cellseg.whole_files import whole

FORMAT = 1
"""of the files; raised, once a release, with all that earlier versions cannot read, such as a new field of a config"""
NEEDS = "0.1.0"
"""the first version that reads this format; the file tells it to earlier ones"""
FIELDS = {"model", "config", "plan", "commit", "epoch", "metrics", "training"}


@dataclass(frozen=True)
class Checkpoint:
    """A network with all that is needed to use it, and, in `training`, to go on training it."""

    model: Mapping[str, Tensor]
    config: RunConfig
    plan: Plan
    commit: str
    epoch: int
    metrics: Mapping[str, float]
    training: Mapping[str, Any]


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write to a temporary file beside the path, then rename: a reader never sees half a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "needs": NEEDS,
        "model": dict(checkpoint.model),
        "config": to_dict(checkpoint.config),
        "plan": to_dict(checkpoint.plan),
        "commit": checkpoint.commit,
        "epoch": checkpoint.epoch,
        "metrics": dict(checkpoint.metrics),
        "training": dict(checkpoint.training),
    }
    with whole(path) as partial, partial.open("wb") as file, _as_the_disk_says():
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _as_the_disk_says() -> Iterator[None]:
    """Raises the error of a full disk, which torch hides behind one of its own."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def load(path: Path) -> Checkpoint:
    """The checkpoint of a file, on the CPU.

    Raises FileNotFoundError, or ValueError where the file is not a checkpoint, holds pickled objects, or has a newer
    format.
    """
    if path.is_dir():
        found = min(path.rglob("*.pt"), default=path / "best.pt")
        raise IsADirectoryError(f"{path}: a folder, where a checkpoint was expected; name one in it, such as {found}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; expected a best.pt or last.pt written by final_train.py")
    content = read_tensors(path)
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise ValueError(f"{path}: expected a cellseg checkpoint, found another file of torch.save")
    if content["format"] > FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {content['format']}, this version reads up to {FORMAT}; update cellseg to "
            f"{content.get('needs', 'its newest version')} or later"
        )
    if missing := FIELDS - content.keys():
        raise ValueError(
            f"{path}: expected all of a checkpoint, found none of its {', '.join(sorted(missing))}; copy it again"
        )
    return Checkpoint(
        model=content["model"],
        config=from_dict(RunConfig, content["config"], f"{path}: config"),
        plan=from_dict(Plan, content["plan"], f"{path}: plan"),
        commit=content["commit"],
        epoch=content["epoch"],
        metrics=content["metrics"],
        training=content["training"],
    )


def load_model(path: Path, device: str | torch.device = "cpu") -> tuple[CellRCNN, Checkpoint]:
    """The network of a checkpoint, in evaluation mode on the device, and the checkpoint."""
    checkpoint = load(path)
    model = build_model(checkpoint.config.model, pretrained=False)
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: expected the tensors of its config's network, found others: {reason}") from error
    # in bfloat16 where it was trained so and the device computes in it; compiling takes longer than most predictions
    place(model, torch.device(device), replace(checkpoint.config.train, compile=False))
    return model.eval(), checkpoint


def load_ensemble(paths: Sequence[Path], device: str | torch.device = "cpu") -> tuple[Ensemble, Checkpoint]:
    """The networks of one or more checkpoints, to predict together, and the first checkpoint.

    Each sees images at the microns per pixel of its own training, where those of the first's and its own are known.
    Raises ValueError where they do not tell the same classes, or saw images in other colours.
    """
    return ensemble_of(paths, [load_model(path, device) for path in paths])


def ensemble_of(paths: Sequence[Path], loaded: Sequence[tuple[CellRCNN, Checkpoint]]) -> tuple[Ensemble, Checkpoint]:
    """As `load_ensemble`, of what was loaded from the paths."""
    _, first = loaded[0]
    for path, (_, other) in zip(paths, loaded, strict=True):
        for what, found, expected in (
            ("classes", other.plan.class_names, first.plan.class_names),
            ("dataset.color", other.config.dataset.color, first.config.dataset.color),
        ):
            if found != expected:
                raise ValueError(
                    f"{path}: expected {what} {expected}, as {paths[0]} has, found {found}; leave one of the two out"
                )
    networks, checkpoints = zip(*loaded, strict=True)
    # images come at the first's scale, which a network trained at half the microns per pixel sees at twice its zoom
    factors = (relative_zoom(first.plan.mpp, each.plan.mpp)[0] for each in checkpoints)
    points = (each.config.predict.zoomed(factor) for each, factor in zip(checkpoints, factors, strict=True))
    return Ensemble(networks, tuple(points)), first
