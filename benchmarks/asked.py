"""Finished networks of the accuracy benchmark, asked for the images that they have not seen, setting by setting."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from answers import BASE, CALIBRATED, IN_TORCHVISION, SETTINGS, TOGETHER, Answer, add, digest, read
from contestants import Theirs, contestant
from opponent_predict import predicted
from opponents import build
from records import BEGUN
from torchvision.models.detection import MaskRCNN

from cellseg.checkpoint import Checkpoint, load_model
from cellseg.codes import Array
from cellseg.config import PredictConfig
from cellseg.config_fields import replaced
from cellseg.device import device_of
from cellseg.ensemble import Ensemble
from cellseg.evaluate import score
from cellseg.experiment import Prepared
from cellseg.model import CellRCNN
from cellseg.out_of_fold import judge
from cellseg.predict import Result, predict
from cellseg.tensor_files import read_tensors


class Networks(Protocol):
    """Those of one recipe and several seeds."""

    def has(self, setting: str) -> bool:
        """Whether they can be asked so."""

    def metrics(self, setting: str, seeds: Sequence[int]) -> Mapping[str, float]:
        """The figures of one network on the images held out, or of several together."""


@dataclass(frozen=True)
class OurNetworks:
    """Those of a recipe of ours, by seed."""

    prepared: Prepared
    loaded: Mapping[int, tuple[CellRCNN, Checkpoint]]

    def has(self, setting: str) -> bool:
        """In any way."""
        return setting in SETTINGS

    def metrics(self, setting: str, seeds: Sequence[int]) -> Mapping[str, float]:
        """The figures of one network, or of several together."""
        truth, images = _held_out(self.prepared)
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


@dataclass(frozen=True)
class TheirNetworks:
    """Those of an opponent, by seed."""

    entry: Theirs
    loaded: Mapping[int, MaskRCNN]

    def has(self, setting: str) -> bool:
        """In those ways that torchvision has too."""
        return setting not in (CALIBRATED, TOGETHER) and SETTINGS[setting].keys() <= IN_TORCHVISION

    def metrics(self, setting: str, seeds: Sequence[int]) -> Mapping[str, float]:
        """The figures of one network."""
        (seed,) = seeds
        truth, images = _held_out(self.entry.prepared)
        opponent, model, fields = self.entry.opponent, self.loaded[seed], SETTINGS[setting]
        model.roi_heads.detections_per_img = fields.get("detections", opponent.detections)
        model.roi_heads.nms_thresh = fields.get("box_nms", opponent.box_nms)
        model.roi_heads.score_thresh = fields.get("score_threshold", opponent.score_threshold)
        proposals = fields.get("proposals", opponent.proposals_asked)
        model.rpn._pre_nms_top_n["testing"] = model.rpn._post_nms_top_n["testing"] = proposals
        return score(truth, predicted(model, images, opponent, self.entry.prepared.plan.zoom)).metrics


def ask(options: argparse.Namespace, paths: Mapping[int, Path], file: Path) -> None:
    """Put every missing answer on record: setting by setting, each for all networks.

    Raises ValueError for a network whose training has not ended, and for a setting that it does not have.
    """
    networks = opened(options, paths)
    if lacking := [setting for setting in options.settings or [] if not networks.has(setting)]:
        raise ValueError(f"setting {lacking[0]}: recipe {options.recipe} has no such thing; leave it out")
    known = {(each.setting, each.seed, each.network) for each in read(file)}
    for setting in filter(networks.has, options.settings or SETTINGS):
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
    entry = contestant(options.recipe, options.data, options.device, options.split_seed)
    device = device_of(options.device)
    if isinstance(entry, Theirs):
        return TheirNetworks(entry, {seed: _opponent_s(entry, path, device) for seed, path in paths.items()})
    loaded = {seed: load_model(path, device) for seed, path in paths.items()}
    for seed, (_, checkpoint) in loaded.items():
        _refuse_unfinished(paths[seed], checkpoint.epoch, checkpoint.config.train.epochs, "epochs")
    return OurNetworks(entry.prepared, loaded)


def _opponent_s(entry: Theirs, path: Path, device: torch.device) -> MaskRCNN:
    """The network of an opponent's checkpoint."""
    state = read_tensors(path)
    _refuse_unfinished(path, state["step"], json.loads((path.parent / BEGUN).read_text())["steps"], "steps")
    model = build(entry.opponent, entry.prepared.data.num_cell_classes, device)
    model.load_state_dict(state["model"])
    return model


def _refuse_unfinished(path: Path, done: int, planned: int, what: str) -> None:
    if done < planned:
        raise ValueError(f"{path}: trained for {done} of {planned} {what}; go on with it by benchmarks/accuracy.py")


def _held_out(prepared: Prepared) -> tuple[dict[str, Any], Iterator[tuple[int, Array]]]:
    """Truth and images that are held out."""
    return prepared.data.truth(prepared.validation), prepared.data.identified(prepared.validation)


def calibrated(truth: Mapping[str, Any], results: Sequence[Result], pq_threshold: float) -> Mapping[str, float]:
    """The figures of the results, and the mean over images of what a calibration fitted to the others adds."""
    images = [image["id"] for image in truth["images"]]
    folds = [[each for each in results if each["image_id"] == image] for image in images]
    learnt = judge(truth, folds, [{image} for image in images], pq_threshold)
    more = {name: learnt.calibrated_mean[name] - plain for name, plain in learnt.plain_mean.items()}
    return {name: plain + more[name] for name, plain in learnt.plain.metrics.items()}
