"""All that changes while a training runs: made, saved into last.pt, and restored from it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cellseg.checkpoint import Checkpoint
from cellseg.config import RunConfig
from cellseg.distributed import state_from_first, world
from cellseg.model import CellRCNN, build_model, place, state_of
from cellseg.optimizer import optimizer_of

BEST_BY = "val/AP50"


@dataclass
class Progress:
    """A training between two epochs."""

    model: CellRCNN
    averaged: CellRCNN
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> float:
        """Highest validation figure so far; -1 before the first."""
        return max((past["metrics"].get(BEST_BY, -1.0) for past in self.history), default=-1.0)

    @property
    def epochs_since_best(self) -> int:
        """Epochs from the best one to the last that was validated."""
        validated = [past for past in self.history if BEST_BY in past["metrics"]]
        best = max(validated, key=lambda past: float(past["metrics"][BEST_BY]), default=None)
        return int(validated[-1]["epoch"] - best["epoch"]) if best else 0


def begin(
    config: RunConfig, device: torch.device, saved: Checkpoint | None, class_names: Sequence[str] = ()
) -> Progress:
    """A new training of these classes, or one that goes on where `saved` was written.

    Raises ValueError where that had another config.
    """
    torch.manual_seed(config.seed)
    model = build_model(config.model, saved is None and world()[0] == 0, class_names)
    state_from_first(model)
    if world()[1] > 1 and device.type == "cuda":  # on a CPU each process normalises by its own images
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    for each in (model, averaged):
        place(each, device, config.train)
    progress = Progress(model, averaged, optimizer_of(model, config.train))
    if saved is not None:
        _restore(progress, saved, config)
    return progress


def for_all_processes(model: CellRCNN) -> nn.Module:
    """The network whose backward pass averages the gradients over all processes: itself where there is one."""
    if world()[1] == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def resumable(progress: Progress) -> dict[str, Any]:
    """What `begin` needs beside the averaged network to go on."""
    return {
        "model": state_of(progress.model),
        "optimizer": progress.optimizer.state_dict(),
        "step": progress.step,
        "processes": world()[1],
        "history": progress.history,
    }


def _restore(progress: Progress, saved: Checkpoint, config: RunConfig) -> None:
    if _portable(saved.config) != _portable(config):
        raise ValueError("resume: the training was started with another config; resume it without changed options")
    training: Mapping[str, Any] = saved.training
    before, now = training.get("processes", 1), world()[1]
    if before != now:  # an epoch has other steps then, and the schedule would jump
        raise ValueError(f"resume: the training was started in {before} processes, this is one of {now}; use {before}")
    progress.model.load_state_dict(training["model"])
    progress.averaged.load_state_dict(saved.model)
    progress.optimizer.load_state_dict(training["optimizer"])
    progress.epoch, progress.step, progress.history = saved.epoch, training["step"], training["history"]


def _portable(config: RunConfig) -> RunConfig:
    """The config without what may change when a training goes on elsewhere."""
    return replace(config, device="auto", dataset=replace(config.dataset, workers=0))
