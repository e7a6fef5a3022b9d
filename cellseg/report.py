"""A run -> all that its report tells: its log, its folder, and what its network finds on unseen images."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cellseg import run_log
from cellseg.calibration import reliability, scores_of, true_positives
from cellseg.checkpoint import Checkpoint, load_model
from cellseg.codes import Array
from cellseg.config import RunConfig
from cellseg.confusion import Matched, matched_cells
from cellseg.dataset import DataSet
from cellseg.device import device_of
from cellseg.evaluate import Scores, score
from cellseg.experiment import RUNS, opened, planned, resumed, run_folder
from cellseg.fingerprint import Plan, fingerprint, plan
from cellseg.folds import RESULTS, is_folds_run
from cellseg.json_files import read_results
from cellseg.predict import Result, predict
from cellseg.reproduction import UNKNOWN, Recorded
from cellseg.run_log import Logged
from cellseg.train import BEST_BY

History = Mapping[int, float]
LOSS = "train/loss"
FIGURES = {
    "AP50": "val/AP50",
    "AP50 uncapped": "val/AP50_uncapped",
    "AP": "val/AP",
    "AP uncapped": "val/AP_uncapped",
    "AP50, mean of the folds": "folds/AP50",
}
"""metrics that validations leave, by what they are called"""
SHOWN = 10
"""best images, and as many worst ones"""


@dataclass(frozen=True)
class Unseen:
    """Images that the network was not trained on, and what was found on them."""

    data: DataSet
    indices: Sequence[int]
    """of the images in data"""
    results: Sequence[Result]
    threshold: float
    """score from which on a cell is drawn"""
    scores: Scores
    images: Sequence[Matched]
    """one for each of the indices"""
    reliability: Array
    """(B, 3) as calibration.reliability has it, of all classes"""


@dataclass(frozen=True)
class Report:
    """All that the report of a run tells."""

    run: Logged
    config: RunConfig
    plan: Plan
    recorded: Recorded
    remark: str
    """where the results come from, or why there are none"""
    trained_on: int
    """images"""
    losses: Mapping[str, History]
    """by step"""
    figures: Mapping[str, History]
    """of validations: by step, or by epoch for the parent of folds"""
    unseen: Unseen | None
    of_folds: bool = False
    """it is the parent of folds, and its results are those of all of them"""


def gather(run_id: str, *, store: Path, runs: Path = RUNS, root: Path | None = None, device: str = "auto") -> Report:
    """The report of a run with a folder under `runs` and a log in the MLflow store of a folder.

    The best network predicts the images that were held back; of the parent of folds, the results are there. `root` is
    where the data lie now, if they were moved. Raises FileNotFoundError and ValueError where something is not there, or
    the data are not those that it was trained on.
    """
    folder = run_folder(run_id, runs)
    run = run_log.logged(run_id, root=store)
    config, recorded_root = resumed(run_id, runs)
    root = root or recorded_root
    if is_folds_run(run_id, runs):
        return _of_folds(run, config, root, folder, store)
    return _of_network(run, config, root, folder, store, device)


def best_and_worst(values: Sequence[float], most: int = SHOWN) -> tuple[list[int], list[int]]:
    """Numbers of the best, best first, and of the worst, worst first; the earlier of equals is the better.

    Where there are at most twice as many as are asked for, all are among the best.
    """
    order = np.argsort(-np.asarray(values, np.float64), kind="stable").tolist()
    return (order, []) if len(order) <= 2 * most else (order[:most], order[: -most - 1 : -1])


def _of_network(run: Logged, config: RunConfig, root: Path, folder: Path, store: Path, device: str) -> Report:
    network, saved = load_model(folder / "best.pt", device_of(device))
    prepared = planned(config, root, _unchanged(config, root, folder))
    data, held = prepared.data, prepared.validation
    parent = run.tags.get("mlflow.parentRunId", "")
    in_folds = bool(parent) and is_folds_run(parent, folder.parents[1])
    whole = resumed(parent, folder.parents[1])[0] if in_folds else saved.config
    unseen = None
    if held:
        images = tqdm(data.identified(held), "predict", len(held), disable=not sys.stderr.isatty())
        unseen = _measured(data, held, predict(network, images, saved.config.predict), saved.config)
    return Report(
        run=run,
        config=saved.config,
        plan=saved.plan,
        recorded=_recorded(run, whole, root, saved.commit, in_folds),
        remark=_remark(saved, len(held), parent if in_folds else ""),
        trained_on=len(prepared.train),
        losses=_losses(run, store),
        figures=_figures(run, store),
        unseen=unseen,
    )


def _of_folds(run: Logged, config: RunConfig, root: Path, folder: Path, store: Path) -> Report:
    if not (folder / RESULTS).exists():
        raise FileNotFoundError(
            f"{folder / RESULTS}: not there before all folds are trained; --resume {run.id} goes on"
        )
    results = read_results(folder / RESULTS)
    data = _unchanged(config, root, folder)
    every = range(len(data))
    return Report(
        run=run,
        config=config,
        plan=plan(data, fingerprint(data, every), config),
        recorded=_recorded(run, config, root, run.tags.get("git.commit", UNKNOWN), in_folds=True),
        remark=f"Each image was predicted by the one of {config.dataset.folds} networks that has not seen it.",
        trained_on=len(data),
        losses={},
        figures=_figures(run, store),
        unseen=_measured(data, every, results, config),
        of_folds=True,
    )


def _unchanged(config: RunConfig, root: Path, folder: Path) -> DataSet:
    """The data set of a run's folder. Raises FileNotFoundError where it is gone, ValueError where it is another."""
    if not root.exists():
        raise FileNotFoundError(f"{root}: the data of run {folder.name} are not there; say with --data where they are")
    data = opened(config, root)
    if data.digest != folder.parent.name:
        raise ValueError(
            f"{root}: expected the data of run {folder.name}, digest {folder.parent.name}, found {data.digest}; "
            f"restore them, or say with --data where they are"
        )
    return data


def _measured(data: DataSet, indices: Sequence[int], results: Sequence[Result], config: RunConfig) -> Unseen:
    truth, threshold = data.truth(indices), config.predict.pq_threshold
    return Unseen(
        data=data,
        indices=indices,
        results=results,
        threshold=threshold,
        scores=score(truth, results, threshold),
        images=matched_cells(truth, results, threshold),
        reliability=reliability(scores_of(results), true_positives(truth, results)),
    )


def _recorded(run: Logged, config: RunConfig, root: Path, commit: str, in_folds: bool) -> Recorded:
    return Recorded(config, root.resolve(), commit, int(run.tags.get("processes", 1)), in_folds)


def _losses(run: Logged, store: Path) -> dict[str, History]:
    """Their sum first; the names as they are to be read."""
    names = sorted(name for name in run.metrics if name.startswith(LOSS))
    shown = [name.removeprefix(LOSS).replace("_", " ").strip() or "all" for name in names]
    return {each: run_log.history(run.id, name, root=store) for each, name in zip(shown, names, strict=True)}


def _figures(run: Logged, store: Path) -> dict[str, History]:
    histories = {label: run_log.history(run.id, name, root=store) for label, name in FIGURES.items()}
    return {label: history for label, history in histories.items() if history}


def _remark(saved: Checkpoint, held: int, parent: str) -> str:
    if held:
        then = f"; when it was trained, its AP50 on them was {saved.metrics[BEST_BY]:.3f}" if saved.metrics else ""
        images = "the one image that was" if held == 1 else f"the {held} images that were"
        return f"Predicted anew by the best network, that of epoch {saved.epoch}, on {images} held back{then}."
    where = f" The folds show how good it may be: cellseg report {parent}" if parent else ""
    return f"Trained on all images: none was held back, so nothing tells how good it is on others.{where}"
