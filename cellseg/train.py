"""The one training loop: fit(config, …, observer)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cellseg import checkpoint
from cellseg.checkpoint import Checkpoint
from cellseg.config import RunConfig, TrainConfig
from cellseg.dataset import DataSet
from cellseg.device import device_of
from cellseg.distributed import from_first, gathered, own_device, state_from_first, world
from cellseg.evaluate import score
from cellseg.fingerprint import Plan, fingerprint, sampling_weights
from cellseg.loader import EpochBatches, forward_passes, training_loader
from cellseg.model import state_of
from cellseg.predict import Result, predict
from cellseg.progress import BEST_BY, Progress, begin, for_all_processes, resumable
from cellseg.step import NonFiniteLossError, StepObserver, train_epoch
from cellseg.whole_files import sweep

__all__ = ["BEST_BY", "EpochReport", "NonFiniteLossError", "Observer", "fit", "write_checkpoints"]
Validated = tuple[list[Result], dict[str, float], dict[str, dict[str, list[float]]]]


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


class Observer(StepObserver, Protocol):
    """What watches a training."""

    def epoch(self, report: EpochReport) -> bool:
        """Take a report; True stops the training after it."""


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
    tells the observer the past again first. Of several processes, the first writes and tells, and each validates its
    share of the images. Raises NonFiniteLossError, FileExistsError where a training lies in folder that was not to be
    resumed.
    """
    last = folder / "last.pt"
    first = world()[0] == 0
    if from_first(last.exists()) and not resume:
        raise FileExistsError(f"{last}: a training lies here already; resume it or choose another folder")
    if first:
        sweep(folder)
    saved = from_first(checkpoint.load(last) if first and last.exists() else None)
    progress = begin(config, own_device(device_of(config.device)), saved, plan.class_names)
    network = for_all_processes(progress.model)
    _replay(progress, observer, last)
    weights = sampling_weights(fingerprint(data, train), config.train)
    loader = training_loader(data, train, weights, config)
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatches)
    stopped = False
    while not (stopped or _finished(progress, config.train)):
        batches.epoch = progress.epoch
        _seed(config.seed, progress.epoch)
        passes = forward_passes(len(train), config)
        steps = train_epoch(progress, network, loader, config.train, passes, observer)
        progress.epoch += 1
        report = _report(progress, steps, _validate(progress, config, data, validation), last, bool(validation))
        if first:
            write_checkpoints(progress, config, plan, commit, report)
        stopped = from_first(observer.epoch(report))
    return folder / "best.pt"


def _finished(progress: Progress, config: TrainConfig) -> bool:
    """Whether all epochs are over, or too many since the best one."""
    return progress.epoch >= config.epochs or 0 < config.patience <= progress.epochs_since_best


def _seed(seed: int, epoch: int) -> None:
    """Make what a network drops at random follow from seed, epoch and process, however often it was interrupted."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, world()[0]]).generate_state(1)[0]))


def _validate(progress: Progress, config: RunConfig, data: DataSet, validation: Sequence[int]) -> Validated:
    """Results, figures and curves of the averaged network on the validation images; empty when it is not their turn.

    Of several processes, each predicts its share, the first measures, and all get the figures.
    """
    last = progress.epoch == config.train.epochs
    if not validation or (progress.epoch % config.train.validate_every and not last):
        return [], {}, {}
    state_from_first(progress.averaged)  # processes have normalised by images of their own
    rank, size = world()
    shares = gathered(predict(progress.averaged, data.identified(validation[rank::size]), config.predict))
    results, metrics, curves = _measured(shares, config, data, validation) if shares else ([], {}, {})
    return results, from_first(metrics), curves


def _measured(
    shares: Sequence[Sequence[Result]], config: RunConfig, data: DataSet, validation: Sequence[int]
) -> Validated:
    """Results of all processes in the order of `predict`, their figures and curves."""
    results = sorted((each for share in shares for each in share), key=lambda each: each["image_id"])
    scores = score(data.truth(validation), results, config.predict.pq_threshold)
    metrics = {f"val/{name}": value for name, value in scores.metrics.items()}
    for label, figures in scores.per_class.items():
        metrics |= {f"val/{label}/{name}": value for name, value in figures.items() if name.startswith("AP50")}
    return results, metrics, scores.curves


def _report(
    progress: Progress, steps: list[dict[str, float]], validated: Validated, last: Path, judged: bool
) -> EpochReport:
    """What the epoch brought, which becomes a part of the history; an unjudged one is the best so far."""
    results, metrics, curves = validated
    improved = metrics.get(BEST_BY, -1.0) > progress.best or not judged
    progress.history.append({"epoch": progress.epoch, "step": progress.step, "metrics": metrics, "steps": steps})
    return EpochReport(progress.epoch, progress.step, metrics, results, curves, improved, last)


def write_checkpoints(progress: Progress, config: RunConfig, plan: Plan, commit: str, report: EpochReport) -> None:
    """Write last.pt, and best.pt where it is new."""

    def holding(training: Mapping[str, Any]) -> Checkpoint:
        return Checkpoint(state_of(progress.averaged), config, plan, commit, progress.epoch, report.metrics, training)

    best = report.checkpoint.with_name("best.pt")
    if report.improved or not best.exists():
        checkpoint.save(holding({}), best)
    checkpoint.save(holding(resumable(progress)), report.checkpoint)


def _replay(progress: Progress, observer: Observer, last: Path) -> None:
    """Tell the observer what an earlier process did, so that a store which missed the end of it is completed."""
    for past in progress.history:
        first = past["step"] - len(past["steps"]) + 1
        for step, figures in enumerate(past["steps"], start=first):
            observer.step(figures, step)
        observer.epoch(EpochReport(past["epoch"], past["step"], past["metrics"], [], {}, False, last, replayed=True))
