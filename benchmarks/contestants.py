"""What takes part in the accuracy benchmark: our recipes and the opponents, under one interface."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import opponent_training
from ingredients import changes_of, config_of
from opponent_predict import predicted
from opponent_training import Task, batches, train_steps
from opponents import Opponent, opponent_of
from pace import Clock, Tell

from cellseg.budget import STEPS, Pace, paced
from cellseg.checkpoint import Checkpoint, load, load_model
from cellseg.config import RunConfig
from cellseg.config_fields import flat, replaced
from cellseg.device import device_of
from cellseg.distributed import world
from cellseg.experiment import Prepared, Silent, prepare
from cellseg.fine_tune import begun_from
from cellseg.git import git_commit
from cellseg.model import trainable_parameters
from cellseg.predict import Result, predict
from cellseg.train import fit

SECONDS = "seconds.txt"
"""of a training, in its folder"""
LATER = {"box_nms": 0.5}
"""fields of an opponent that older records do not know, and what they stand for there"""
EPOCH = 250
"""most steps of one of our epochs, after which a checkpoint is written"""


@dataclass(frozen=True)
class Trained:
    """A finished training, asked for the held-out images."""

    steps: int
    seconds: float
    parameters: int
    results: list[Result]


class Contestant(Protocol):
    """One row of the benchmark."""

    @property
    def prepared(self) -> Prepared:
        """The data set, split, and the Plan."""

    def settings(self) -> Mapping[str, Any]:
        """All that its figures depend on beside data, seed, steps and device, as plain values."""

    def step_seconds(self) -> float:
        """Median seconds of a training step, loading included."""

    def train(self, steps: int, seed: int, folder: Path, tell: Tell) -> Trained:
        """Train, or go on in the folder with a training that was stopped, and predict."""


def contestant(name: str, root: Path, device: str, split_seed: int = 0) -> Contestant:
    """The row of a name, on the data set in root. Raises ValueError for a name that is not known."""
    if opponent := opponent_of(name):
        return Theirs(ours("demo", root, device, split_seed).prepared, opponent)
    recipe, at, processes = name.partition("@")
    entry = ours(recipe, root, device, split_seed)
    if not at:
        return entry
    from together import Together  # it is started as a script too, which begins here

    if not processes.isdecimal() or int(processes) < 2:
        raise ValueError(f"recipe {name}: expected @2 or more processes, got @{processes}; leave it out for one")
    return Together(entry, recipe, int(processes))


def ours(name: str, root: Path, device: str, split_seed: int = 0) -> "Ours":
    """A recipe of ours as one process trains it, with more or less, or begun from a checkpoint: `best-cpu:start.pt`.

    A checkpoint's network is taken over but for what the name changes: `best-cpu+cascade:start.pt` has a cascade.
    Raises ValueError for another name, and for a checkpoint that was trained on images that are held out here.
    """
    recipe, begun, checkpoint = name.partition(":")
    config = replaced(config_of(recipe), {"device": device, "dataset.split_seed": split_seed})
    if not begun:
        return Ours(prepare(config, root))
    changes = changes_of(recipe)
    if "model.weights" in changes:
        raise ValueError(f"recipe {name}: expected a start from scratch or from a checkpoint, got both; leave one out")
    source = load(Path(checkpoint))
    prepared = prepare(begun_from(Path(checkpoint), source, config, changes), root)
    _refuse_peeking(name, source, prepared)
    return Ours(prepared)


def _refuse_peeking(name: str, source: Checkpoint, prepared: Prepared) -> None:
    """Raise ValueError where the checkpoint's network was trained on images of the names that are held out.

    In whatever data set: one that has gained or lost a file has another digest.
    """
    held_out = {prepared.data.records[index].name for index in prepared.validation}
    seen = held_out & set(source.plan.images)
    if seen:
        raise ValueError(
            f"recipe {name}: the checkpoint was trained on {len(seen)} of the {len(held_out)} images held out here; "
            "begin from one that was trained on other data, or on the same split"
        )


@dataclass(frozen=True)
class Ours:
    """A recipe of ours."""

    prepared: Prepared

    def settings(self) -> Mapping[str, Any]:
        """The fields that depart from their defaults, so that a new field with a default changes nothing.

        Weights of a file are told by what it holds.
        """
        config = replaced(self.prepared.config, {"seed": 0, "device": "auto"})
        weights = Path(config.model.weights)
        if weights.is_file():
            config = replaced(config, {"model.weights": hashlib.blake2b(weights.read_bytes()).hexdigest()[:16]})
        defaults = flat(RunConfig())
        return {name: value for name, value in flat(config).items() if value != defaults[name]}

    def step_seconds(self) -> float:
        """Median seconds of an optimiser step of a training that is thrown away, in all processes alike."""
        _, seconds = paced(self.prepared)
        return seconds

    def train(self, steps: int, seed: int, folder: Path, tell: Tell) -> Trained:
        """Train in epochs of at most EPOCH steps; the averaged weights after the last step are asked."""
        self.fit(steps, seed, folder, tell)
        return self.outcome(steps, folder)

    def fit(self, steps: int, seed: int, folder: Path, tell: Tell) -> None:
        """Train, in this process or in all that torchrun has started; the first one tells."""
        prepared = self.prepared
        config = scheduled(replaced(prepared.config, {"seed": seed}), steps)
        folder.mkdir(parents=True, exist_ok=True)
        observer = Clock(folder / SECONDS, steps, tell) if world()[0] == 0 else Silent()
        resume = (folder / "last.pt").exists()
        data, train = prepared.data, prepared.train
        fit(config, prepared.plan, data, train, [], folder, observer, commit=git_commit(), resume=resume)

    def outcome(self, steps: int, folder: Path) -> Trained:
        """What the network that was trained in the folder finds on the held-out images."""
        prepared = self.prepared
        model, checkpoint = load_model(folder / "last.pt", device_of(prepared.config.device))
        train = scheduled(prepared.config, steps).train
        results = predict(model, prepared.data.identified(prepared.validation), checkpoint.config.predict)
        seconds = float((folder / SECONDS).read_text())
        return Trained(train.epochs * train.steps_per_epoch, seconds, trainable_parameters(model), results)


@dataclass(frozen=True)
class Theirs:
    """An opponent."""

    prepared: Prepared
    """of a recipe of ours: the split and the zoom"""
    opponent: Opponent

    @property
    def task(self) -> Task:
        """What it trains on."""
        prepared = self.prepared
        return Task(prepared.data, prepared.train, prepared.plan.zoom, prepared.config.device)

    def settings(self) -> Mapping[str, Any]:
        """Those of the opponent, and the zoom."""
        known = {name: value for name, value in asdict(self.opponent).items() if LATER.get(name) != value}
        return {**known, "zoom": self.prepared.plan.zoom}

    def step_seconds(self) -> float:
        """Median seconds of a step of a training that is thrown away."""
        steps = STEPS
        pace = Pace(batches(self.task, self.opponent, 0, range(steps)), 1)
        state = opponent_training.begin(self.task, self.opponent, 0)
        for _ in train_steps(state, pace, self.opponent, steps, 0):
            pass
        return pace.seconds

    def train(self, steps: int, seed: int, folder: Path, tell: Tell) -> Trained:
        """Train, and ask the network after the last step."""
        state = opponent_training.fit(self.task, self.opponent, steps, seed, folder, tell)
        held_out = self.prepared.data.identified(self.prepared.validation)
        results = predicted(state.model, held_out, self.opponent, self.prepared.plan.zoom)
        return Trained(state.step, state.seconds, trainable_parameters(state.model), results)


def scheduled(config: RunConfig, steps: int) -> RunConfig:
    """The config with so many steps, or a few less, in equal epochs of at most EPOCH."""
    epochs = -(-steps // EPOCH)
    return replaced(config, {"train.epochs": epochs, "train.steps_per_epoch": steps // epochs})
