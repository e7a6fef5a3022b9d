"""Networks that are each validated on a fold they have not seen, and then the final one on all images.

One MLflow run is the parent of their runs. Its folder holds run.json, out_of_fold.json (the pooled results of the
folds' last networks, scores as they are) and truth.json.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cellseg import checkpoint, splits, tracking
from cellseg.config import RunConfig
from cellseg.config_fields import flat, to_dict
from cellseg.dataset import DataSet
from cellseg.device import device_of, machine_of
from cellseg.distributed import world
from cellseg.experiment import RUNS, Prepared, Trained, alone, planned, train_tracked, write_run
from cellseg.json_files import read_results, write_json
from cellseg.out_of_fold import OutOfFold, best_epoch, judge, means_by_epoch, pooled
from cellseg.predict import Result, predict
from cellseg.run_names import run_name, title
from cellseg.train import BEST_BY, Observer

log = logging.getLogger(__name__)
KIND = "folds"
"""`kind` in run.json, and as a tag, of a parent run"""
RESULTS = "out_of_fold.json"
"""of a fold, in its folder: written last, so a fold that has it is done"""


@dataclass(frozen=True)
class Folded:
    """What a training with folds left."""

    run_id: str
    """of the parent"""
    epochs: int
    """that the final network was trained"""
    out_of_fold: OutOfFold
    final: Trained


@dataclass(frozen=True)
class Family:
    """What the trainings under one parent run have in common."""

    config: RunConfig
    """of the parent: dataset.folds is their number"""
    root: Path
    data: DataSet
    experiment: str
    runs: Path
    parent: str
    watchers: Sequence[Observer]


def is_folds_run(run_id: str, runs: Path = RUNS) -> bool:
    """Whether a run that was started on this machine is the parent of folds."""
    return any(json.loads(path.read_text()).get("kind") == KIND for path in runs.glob(f"*/{run_id}/run.json"))


def train_folds(
    config: RunConfig,
    root: Path,
    data: DataSet,
    *,
    experiment: str,
    runs: Path = RUNS,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    watchers: Sequence[Observer] = (),
) -> Folded:
    """Train a network for each of the config's folds, and the final one on all images with what they taught.

    Every fold is trained for all epochs. The final training takes as many as gave the highest AP50, mean over the
    folds, and the calibration and threshold that fit the results of the folds' last networks. With run_id, goes on
    with that parent run where it stopped. Raises ValueError for several processes, part of the pixels, or other data.
    """
    _check(config, root, data, runs, run_id)
    config = replace(config, train=replace(config.train, patience=0))
    labels = {"kind": KIND, "data": str(root), "digest": data.digest, "recipe": config.recipe, **(tags or {})}
    labels["hardware"] = machine_of(device_of(config.device))
    start = partial(
        tracking.start,
        experiment,
        run_name(f"folds · {title(config)}", config),
        root=Path.cwd(),
        params=flat(config),
        config=to_dict(config),
        tags=labels,
        run_id=run_id,
        system_metrics=False,  # its children have them
    )
    with alone(start, runs / data.digest, run_id) as (run, folder):
        if not run_id:
            write_run(folder, config, root, kind=KIND)
            run.dataset(str(root), data.digest)
            log.info("%d folds: if interrupted, go on with --resume %s", config.dataset.folds, run.id)
        return _train_all(run, Family(config, root, data, experiment, runs, run.id, watchers))


def _train_all(run: tracking.Run, family: Family) -> Folded:
    """The folds, what they teach, and the final network."""
    config, data = family.config, family.data
    trained = [_fold(family, number) for number in range(config.dataset.folds)]
    means = means_by_epoch([figures for _, figures in trained])
    epochs = best_epoch(means)
    results, truth = [found for found, _ in trained], data.truth()
    folder = family.runs / data.digest / run.id
    write_json(pooled(results), folder / RESULTS)
    write_json(truth, folder / "truth.json")
    learnt = judge(truth, results, _held(family), config.predict.pq_threshold)
    for epoch, mean in means.items():
        run.metrics({"folds/AP50": mean}, epoch)
    run.metrics({**learnt.figures(), "folds/epochs": float(epochs)}, config.train.epochs)
    run.flush()
    prepared = planned(final_config(config, epochs, learnt), family.root, data)
    return Folded(run.id, epochs, learnt, _trained(family, prepared, "final"))


def final_config(config: RunConfig, epochs: int, learnt: OutOfFold) -> RunConfig:
    """The config of the training on all images, with what the folds taught."""
    return replace(
        config,
        dataset=replace(config.dataset, folds=0, fold=0, validation_fraction=0.0),
        train=replace(config.train, epochs=epochs),
        predict=replace(config.predict, calibration=learnt.calibration, pq_threshold=learnt.pq_threshold),
    )


def _check(config: RunConfig, root: Path, data: DataSet, runs: Path, run_id: str | None) -> None:
    if world()[1] > 1:
        raise ValueError(
            f"--folds: expected one process, found {world()[1]}; start it without torchrun, or train each fold with "
            f"--dataset.folds and --dataset.fold"
        )
    if not config.dataset.folds:
        raise ValueError("dataset.folds: expected at least 2 folds to train, got 0; set --folds")
    if config.dataset.subset != 1:
        raise ValueError(f"dataset.subset: expected 1 with folds, which take whole images, got {config.dataset.subset}")
    if run_id and not (runs / data.digest / run_id / "run.json").exists():
        raise ValueError(f"--resume {run_id}: {root} has changed since it was started; restore the data")
    if run_id and not is_folds_run(run_id, runs):
        raise ValueError(f"--resume {run_id}: expected a run that --folds started; resume it without --folds")


def _held(family: Family) -> list[set[int]]:
    """Ids of the images that each fold holds back."""
    settings, records = family.config.dataset, family.data.records
    fold_of = splits.folds(family.data, settings.folds, settings.split_seed, settings.grouped_split)
    return [
        {record.image_id for record, fold in zip(records, fold_of, strict=True) if fold == number}
        for number in range(settings.folds)
    ]


def _fold(family: Family, number: int) -> tuple[list[Result], dict[int, float]]:
    """Results of a fold's last network on its held-back images, and its AP50 by epoch; trained where it is not yet."""
    stage = f"fold {number + 1} of {family.config.dataset.folds}"
    run_id = _child(family, stage)
    folder = family.runs / family.data.digest / (run_id or "")
    if not run_id or not (folder / RESULTS).exists():
        settings = replace(family.config.dataset, fold=number)
        prepared = planned(replace(family.config, dataset=settings), family.root, family.data)
        log.info("%s: %d images, %d held back", stage, len(prepared.train), len(prepared.validation))
        folder = _trained(family, prepared, stage).best.parent
        write_json(_predicted(folder / "last.pt", prepared), folder / RESULTS)
    history = checkpoint.load(folder / "last.pt").training["history"]
    figures = {past["epoch"]: past["metrics"][BEST_BY] for past in history if BEST_BY in past["metrics"]}
    return read_results(folder / RESULTS), figures


def _trained(family: Family, prepared: Prepared, stage: str) -> Trained:
    """A training under the parent run, begun or gone on with."""
    return train_tracked(
        prepared,
        experiment=family.experiment,
        name=run_name(f"{stage} · {title(prepared.config)}", prepared.config),
        runs=family.runs,
        parent=family.parent,
        run_id=_child(family, stage),
        tags={"stage": stage},
        watchers=family.watchers,
    )


def _child(family: Family, stage: str) -> str | None:
    """The run of a stage, or None where there is none, or none that came as far as to leave what resuming takes."""
    found = tracking.find_run(family.experiment, {"mlflow.parentRunId": family.parent, "stage": stage}, root=Path.cwd())
    started = found and (family.runs / family.data.digest / found / "run.json").exists()
    return found if started else None


def _predicted(path: Path, prepared: Prepared) -> list[Result]:
    """Results of a checkpoint's network on the images that were held back."""
    model, saved = checkpoint.load_model(path, device_of(prepared.config.device))
    return predict(model, prepared.data.identified(prepared.validation), saved.config.predict)
