"""The one training loop: fit(config, …, observer)."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cellseg import checkpoint
from cellseg.checkpoint import Checkpoint
from cellseg.config import RunConfig, TrainConfig
from cellseg.dataset import DataSet
from cellseg.device import device_of
from cellseg.evaluate import score
from cellseg.fingerprint import Plan, fingerprint, sampling_weights
from cellseg.label_maps import Target
from cellseg.loader import Batch, EpochBatches, forward_passes, training_loader
from cellseg.model import CellRCNN, build_model, set_bf16, state_of
from cellseg.optimizer import average_decay, optimizer_of, rate_factor
from cellseg.predict import Result, predict

BEST_BY = "val/AP50"


@dataclass(frozen=True)
class EpochReport:
    """What an epoch brought."""

    epoch: int
    """epochs finished, from 1"""
    step: int
    """optimiser steps finished"""
    metrics: Mapping[str, float]
    """val/… figures; empty where the epoch was not validated"""
    results: Sequence[Result]
    curves: Mapping[str, Mapping[str, list[float]]]
    improved: bool
    """the best epoch so far, so best.pt is new"""
    checkpoint: Path
    """last.pt, already written"""
    replayed: bool = False
    """told again on resume: metrics alone, of an epoch that an earlier process finished"""


class Observer(Protocol):
    """What watches a training."""

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Train/… figures of one optimiser step, counted from 1."""

    def epoch(self, report: EpochReport) -> bool:
        """Take a report; True stops the training after it."""


class NonFiniteLossError(FloatingPointError):
    """The loss of a batch is NaN or infinite."""


@dataclass
class Progress:
    """All that changes while a training runs, and so all that a resume needs."""

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


def fit(
    config: RunConfig,
    plan: Plan,
    data: DataSet,
    train: Sequence[int],
    validation: Sequence[int],
    folder: Path,
    observer: Observer,
    *,
    commit: str = "unknown",
    resume: bool = False,
) -> Path:
    """The path of best.pt, beside last.pt in folder; without validation images the last network is the best.

    With resume, goes on after the last epoch in folder/last.pt, to the same weights as without the interruption, and
    tells the observer the past again first. Raises NonFiniteLossError, FileExistsError where a training lies in folder
    that was not to be resumed.
    """
    last = folder / "last.pt"
    if last.exists() and not resume:
        raise FileExistsError(f"{last}: a training lies here already; resume it or choose another folder")
    torch.manual_seed(config.seed)
    device = device_of(config.device)
    progress = _start(config, device, pretrained=not last.exists())
    if last.exists():
        _restore(progress, checkpoint.load(last), config)
    _replay(progress, observer, last)
    weights = sampling_weights(fingerprint(data, train), config.train)
    loader = training_loader(data, train, weights, config)
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatches)
    stopped = False
    while not (stopped or _finished(progress, config.train)):
        batches.epoch = progress.epoch
        steps = _train_epoch(progress, loader, config, forward_passes(len(train), config), observer)
        progress.epoch += 1
        results, metrics, curves = _validate(progress, config, data, validation)
        improved = metrics.get(BEST_BY, -1.0) > progress.best or not validation
        progress.history.append({"epoch": progress.epoch, "step": progress.step, "metrics": metrics, "steps": steps})
        if improved or not (folder / "best.pt").exists():
            checkpoint.save(_checkpoint(progress, config, plan, commit, training={}), folder / "best.pt")
        checkpoint.save(_checkpoint(progress, config, plan, commit, training=_resumable(progress)), last)
        report = EpochReport(progress.epoch, progress.step, metrics, results, curves, improved, last)
        stopped = observer.epoch(report)
    return folder / "best.pt"


def _finished(progress: Progress, config: TrainConfig) -> bool:
    """Whether all epochs are over, or too many since the best one."""
    return progress.epoch >= config.epochs or 0 < config.patience <= progress.epochs_since_best


def _start(config: RunConfig, device: torch.device, pretrained: bool) -> Progress:
    model = build_model(config.model, pretrained).to(device)
    set_bf16(model, config.train.amp and device.type == "cuda")
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    return Progress(model, averaged, optimizer_of(model, config.train))


def _train_epoch(
    progress: Progress, loader: Any, config: RunConfig, passes: int, observer: Observer
) -> list[dict[str, float]]:
    """Figures of each optimiser step of one epoch."""
    progress.model.train()
    accumulation = config.train.accumulation
    total = config.train.epochs * passes // accumulation
    steps: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    for number, batch in enumerate(loader, start=1):
        for name, value in _backward(progress.model, batch, accumulation).items():
            sums[name] = sums.get(name, 0.0) + value / accumulation
        if number % accumulation:
            continue
        rate = config.train.learning_rate * rate_factor(progress.step, total, config.train.warmup_fraction)
        figures = {f"train/{name}": value for name, value in sums.items()}
        figures |= {"train/learning_rate": rate, "train/grad_norm": _update(progress, config.train, rate)}
        sums = {}
        steps.append(figures)
        observer.step(figures, progress.step)
    return steps


def _backward(model: CellRCNN, batch: Batch, accumulation: int) -> dict[str, float]:
    """The losses of a batch, whose gradients are added to the parameters'."""
    device = next(model.parameters()).device
    images = [image.to(device, non_blocking=True) for image in batch.images]
    losses: dict[str, Tensor] = model(images, [_on(device, each) for each in batch.targets])
    loss = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(loss):
        found = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
        raise NonFiniteLossError(
            f"training: the loss is not finite ({found}) on {', '.join(batch.names)}; "
            f"lower --train.learning-rate, or look at these images"
        )
    torch.autograd.backward(loss / accumulation)
    return {"loss": float(loss.detach())} | {name: float(value.detach()) for name, value in losses.items()}


def _on(device: torch.device, cells: Target) -> Target:
    return Target(
        boxes=cells["boxes"].to(device, non_blocking=True),
        labels=cells["labels"].to(device, non_blocking=True),
        ids=cells["ids"].to(device, non_blocking=True),
        label_maps=cells["label_maps"].to(device, non_blocking=True),
    )


def _update(progress: Progress, config: TrainConfig, rate: float) -> float:
    """One optimiser step at a learning rate; the gradient's norm before clipping."""
    trained = [each for each in progress.model.parameters() if each.grad is not None]
    norm = nn.utils.clip_grad_norm_(trained, config.clip_norm or math.inf)
    for group in progress.optimizer.param_groups:
        group["lr"] = rate
    progress.optimizer.step()
    progress.optimizer.zero_grad(set_to_none=True)
    progress.step += 1
    _average(progress, average_decay(progress.step, config.ema_decay))
    return float(norm)


@torch.no_grad()
def _average(progress: Progress, decay: float) -> None:
    for mean, value in zip(progress.averaged.state_dict().values(), progress.model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _validate(
    progress: Progress, config: RunConfig, data: DataSet, validation: Sequence[int]
) -> tuple[list[Result], dict[str, float], dict[str, dict[str, list[float]]]]:
    """Results, figures and curves of the averaged network on the validation images; empty when it is not their turn."""
    last = progress.epoch == config.train.epochs
    if not validation or (progress.epoch % config.train.validate_every and not last):
        return [], {}, {}
    images = ((data.records[index].image_id, data.image(index)) for index in validation)
    results = predict(progress.averaged, images, config.predict)
    scores = score(data.truth(validation), results, config.predict.pq_threshold)
    metrics = {f"val/{name}": value for name, value in scores.metrics.items()}
    for label, figures in scores.per_class.items():
        metrics |= {f"val/{label}/{name}": value for name, value in figures.items() if name.startswith("AP50")}
    return results, metrics, scores.curves


def _checkpoint(
    progress: Progress, config: RunConfig, plan: Plan, commit: str, training: Mapping[str, Any]
) -> Checkpoint:
    metrics = progress.history[-1]["metrics"]
    return Checkpoint(state_of(progress.averaged), config, plan, commit, progress.epoch, metrics, training)


def _resumable(progress: Progress) -> dict[str, Any]:
    return {
        "model": state_of(progress.model),
        "optimizer": progress.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "step": progress.step,
        "history": progress.history,
    }


def _restore(progress: Progress, saved: Checkpoint, config: RunConfig) -> None:
    """Put a training back to where its last.pt was written. Raises ValueError where it had another config."""
    if _portable(saved.config) != _portable(config):
        raise ValueError("resume: the training was started with another config; resume it without changed options")
    progress.model.load_state_dict(saved.training["model"])
    progress.averaged.load_state_dict(saved.model)
    progress.optimizer.load_state_dict(saved.training["optimizer"])
    progress.epoch, progress.step = saved.epoch, saved.training["step"]
    progress.history = saved.training["history"]
    torch.set_rng_state(saved.training["rng"])
    if torch.cuda.is_available() and saved.training["cuda_rng"]:
        torch.cuda.set_rng_state_all(saved.training["cuda_rng"])


def _portable(config: RunConfig) -> RunConfig:
    """The config without what may change when a training goes on elsewhere."""
    return replace(config, device="auto", dataset=replace(config.dataset, workers=0))


def _replay(progress: Progress, observer: Observer, last: Path) -> None:
    """Tell the observer what an earlier process did, so that a store which missed the end of it is completed."""
    for past in progress.history:
        first = past["step"] - len(past["steps"]) + 1
        for step, figures in enumerate(past["steps"], start=first):
            observer.step(figures, step)
        observer.epoch(EpochReport(past["epoch"], past["step"], past["metrics"], [], {}, False, last, replayed=True))
