"""The trainings of the accuracy benchmark, one after the other, each recorded when it is finished."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import records
import torch
from contestants import Contestant, contestant
from records import BEGUN, Rate, Record, digest_of

from cellseg.device import device_of, machine_of
from cellseg.evaluate import score
from cellseg.git import git_commit, git_dirty
from cellseg.whole_files import write_whole

BUSY = 1.0
"""load of the minute before, from which a rate is doubtful"""
PQ_THRESHOLD = 0.5
"""score over which cells are drawn for PQ: one for all rows, or a tuned recipe would meet opponents that are not"""


@dataclass(frozen=True)
class Terms:
    """What is the same for all who take part."""

    data: Path
    file: Path
    """of the records"""
    budget: str
    """such as "15 min" or "200 steps\""""
    seconds: float
    """of training, for each recipe and seed"""
    steps: int | None
    """instead of the seconds"""
    device: str
    split_seed: int = 0
    """which images are held out"""
    clock: str | None = None
    """name of the device whose rates fix the steps; None is the one that trains"""

    @property
    def device_name(self) -> str:
        """Of the device whose rates fix the steps, which a table is made for."""
        return self.clock or self.own_name

    @property
    def own_name(self) -> str:
        """The machine's, with the threads of a CPU."""
        return machine_of(device_of(self.device))


def hold(terms: Terms, recipes: Sequence[str], seeds: Sequence[int]) -> None:
    """Measure all rates that are not on record, then train every recipe with the first seed, with the next, …"""
    entries = {name: contestant(name, terms.data, terms.device, terms.split_seed) for name in recipes}
    steps = {name: terms.steps or steps_of(name, entry, terms) for name, entry in entries.items()}
    for seed in seeds:
        for name, entry in entries.items():
            run(name, entry, steps[name], seed, terms)


def steps_of(name: str, entry: Contestant, terms: Terms) -> int:
    """How many steps of a recipe fit the time, by the rate on record or by one that is measured now."""
    config, data = digest_of(entry.settings()), entry.prepared.data.digest
    rate = records.read(terms.file).rate(name, config, data, terms.device_name)
    if rate is None and terms.device_name != terms.own_name:
        raise ValueError(
            f"--clock {terms.device_name}: {terms.file} has no rate of {name} there, and this is {terms.own_name}; "
            "measure it there, or leave --clock out"
        )
    if rate is None:
        busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
        rate = Rate(name, config, data, terms.device_name, entry.step_seconds(), busy, today())
        records.add(rate, terms.file)
    steps = max(1, int(terms.seconds / rate.step_s))
    print(f"{name}: {rate.step_s:.3f} s a step, {steps} steps in {terms.budget}{_doubt(rate.load)}", flush=True)
    return steps


def _doubt(load: str) -> str:
    """What a rate that was measured beside other work is worth."""
    if load == "unknown" or float(load) < BUSY:
        return ""
    return f"; measured beside other work (load {load}): with a new --out, on a quiet machine, there may be more"


def run(name: str, entry: Contestant, steps: int, seed: int, terms: Terms) -> None:
    """Train, score and record, unless just this is on record."""
    prepared = entry.prepared
    config, data = digest_of(entry.settings()), prepared.data.digest
    who = f"{name} seed {seed}"
    if records.read(terms.file).record(name, seed, terms.budget, config, data, terms.device_name, terms.split_seed):
        print(f"{who}: on record", flush=True)
        return
    folder = records.folder_of(terms.file, name, terms.budget, seed, terms.split_seed)
    begin_anew_unless(folder, {"config": config, "data": data, "steps": steps, "device": terms.device_name})
    trained = entry.train(steps, seed, folder, lambda text: print(f"{who}: {text}", flush=True))
    scores = score(prepared.data.truth(prepared.validation), trained.results, PQ_THRESHOLD)
    record = Record(
        recipe=name,
        seed=seed,
        budget=terms.budget,
        config=config,
        data=data,
        device=terms.device_name,
        trained_on="" if terms.own_name == terms.device_name else terms.own_name,
        split=terms.split_seed,
        steps=trained.steps,
        seconds=round(trained.seconds, 1),
        parameters=trained.parameters,
        metrics=scores.metrics,
        per_class=scores.per_class,
        held_out=tuple(prepared.data.records[index].name for index in prepared.validation),
        date=today(),
        commit=git_commit() + ("+" if git_dirty() == "true" else ""),
        torch=torch.__version__,
    )
    records.add(record, terms.file)
    print(f"{who}: AP50 {scores.metrics['AP50']:.3f}, uncapped {scores.metrics['AP50_uncapped']:.3f}", flush=True)


def begin_anew_unless(folder: Path, identity: Mapping[str, str | int]) -> None:
    """Empty the folder of a training unless it was begun with just these settings, data and steps."""
    path = folder / BEGUN
    text = json.dumps(identity, indent=1)
    if not path.exists() or path.read_text() != text:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_whole(text, path)


def today() -> str:
    """The date, UTC."""
    return datetime.now(UTC).date().isoformat()
