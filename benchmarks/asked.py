"""Finished networks of the accuracy benchmark, asked for the images that they have not seen, setting by setting."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answers import BASE, CALIBRATED, SETTINGS, TOGETHER, Answer, add, digest, read
from contestants import contestant

from cellseg.checkpoint import Checkpoint, load_model
from cellseg.config import PredictConfig
from cellseg.config_fields import replaced
from cellseg.device import device_of
from cellseg.ensemble import Ensemble
from cellseg.evaluate import score
from cellseg.experiment import Prepared
from cellseg.model import CellRCNN
from cellseg.out_of_fold import judge
from cellseg.predict import Result, predict


@dataclass(frozen=True)
class Networks:
    """Networks of one recipe and several seeds, and the images held out."""

    prepared: Prepared
    loaded: Mapping[int, tuple[CellRCNN, Checkpoint]]
    """by seed"""

    def metrics(self, setting: str, seeds: Sequence[int]) -> Mapping[str, float]:
        """The figures of one network, or of several together."""
        prepared = self.prepared
        truth, images = prepared.data.truth(prepared.validation), prepared.data.identified(prepared.validation)
        points = tuple(self._point(setting, seed) for seed in seeds)
        networks = tuple(self.loaded[seed][0] for seed in seeds)
        asked = Ensemble(networks, points) if setting == TOGETHER else networks[0]
        results, pq_threshold = predict(asked, images, points[0]), points[0].pq_threshold
        if setting == CALIBRATED:
            return calibrated(truth, results, pq_threshold)
        return score(truth, results, pq_threshold).metrics

    def _point(self, setting: str, seed: int) -> PredictConfig:
        changes = {f"predict.{field}": value for field, value in SETTINGS[setting].items()}
        return replaced(self.loaded[seed][1].config, changes).predict


def ask(options: argparse.Namespace, paths: Mapping[int, Path], file: Path) -> None:
    """Put every missing answer on record: setting by setting, each for all networks.

    Raises ValueError for a network whose training has not ended.
    """
    networks = opened(options, paths)
    known = {(each.setting, each.seed, each.network) for each in read(file)}
    for setting in options.settings:
        for seed in [-1] if setting == TOGETHER else list(paths):
            seeds = list(paths) if seed < 0 else [seed]
            asked_of = [paths[each] for each in seeds]
            network = digest(asked_of, SETTINGS[setting])
            if (setting, seed, network) not in known:
                metrics = networks.metrics(setting, seeds)
                checkpoints = tuple(digest([path], SETTINGS[BASE]) for path in asked_of)
                add(Answer(setting, seed, network, metrics, checkpoints), file)
                print(f"{setting}, seed {seed}: AP50 {metrics['AP50']:.3f}", flush=True)


def opened(options: argparse.Namespace, paths: Mapping[int, Path]) -> Networks:
    """The networks of the paths, by seed, with the images of the split. Raises ValueError for an unfinished one."""
    prepared = contestant(options.recipe, options.data, options.device, options.split_seed).prepared
    loaded = {seed: load_model(path, device_of(options.device)) for seed, path in paths.items()}
    for seed, (_, checkpoint) in loaded.items():
        epochs = checkpoint.config.train.epochs
        if checkpoint.epoch < epochs:
            raise ValueError(
                f"{paths[seed]}: trained for {checkpoint.epoch} of {epochs} epochs; go on with it by "
                "benchmarks/accuracy.py"
            )
    return Networks(prepared, loaded)


def calibrated(truth: Mapping[str, Any], results: Sequence[Result], pq_threshold: float) -> Mapping[str, float]:
    """The figures of the results, and the mean over images of what a calibration fitted to the others adds."""
    images = [image["id"] for image in truth["images"]]
    folds = [[each for each in results if each["image_id"] == image] for image in images]
    learnt = judge(truth, folds, [{image} for image in images], pq_threshold)
    more = {name: learnt.calibrated_mean[name] - plain for name, plain in learnt.plain_mean.items()}
    return {name: plain + more[name] for name, plain in learnt.plain.metrics.items()}
