"""One tracked training: a data set and a config -> a run in MLflow and a folder with best.pt and last.pt."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cellseg import tracking
from cellseg.config import RunConfig
from cellseg.config_fields import flat, from_dict, to_dict
from cellseg.crops import crops_of, with_crops
from cellseg.dataset import DataSet, open_dataset
from cellseg.device import device_of, machine_of
from cellseg.distributed import from_first, world
from cellseg.fingerprint import Plan, apply, fingerprint, plan
from cellseg.git import git_commit
from cellseg.observers import Bar, Observers, Tracker
from cellseg.splits import held_back
from cellseg.train import EpochReport, Observer, fit
from cellseg.whole_files import only_writer, write_whole

log = logging.getLogger(__name__)
RUNS = Path("experiments/runs")
"""<digest of the data>/<run id>/ holds best.pt, last.pt and run.json"""


@dataclass(frozen=True)
class Prepared:
    """A data set, split and fingerprinted, and the config with nothing left open."""

    root: Path
    """the folder or COCO file, as it was named"""
    config: RunConfig
    plan: Plan
    data: DataSet
    train: Sequence[int]
    validation: Sequence[int]


@dataclass(frozen=True)
class Trained:
    """Where a training left its network."""

    run_id: str
    best: Path
    metrics: Mapping[str, float]
    """best/… figures; empty without validation images"""
    stopped: str
    """why it ended early, or empty"""


def prepare(config: RunConfig, root: Path) -> Prepared:
    """Read and check all training files, split them, and fill in what the config leaves to the Plan."""
    return planned(config, root, opened(config, root))


def opened(config: RunConfig, root: Path) -> DataSet:
    """The data set, all of its training files read and checked."""
    data = open_dataset(root, config.dataset, config.model.num_cell_classes)
    log.info("%s: %d images, digest %s; %s", root, len(data), data.digest, data.channel_order_reason)
    log.log(logging.WARNING if data.scale.doubtful else logging.INFO, "%s: %s", root, data.scale.reason)
    return data


def planned(config: RunConfig, root: Path, data: DataSet) -> Prepared:
    """An open data set, split, and the config with what it leaves to the Plan of the training images filled in."""
    train, validation = held_back(data, config.dataset)
    found = plan(data, fingerprint(data, train), config)
    whole = Prepared(root, apply(config, found), found, data, train, validation)
    return reduced(whole, config.dataset.subset)


def reduced(prepared: Prepared, subset: float) -> Prepared:
    """The same, with that share of its training and validation pixels, in crops; with 1 as it is.

    Raises ValueError for a share outside 0 < subset <= 1.
    """
    if not 0 < subset <= 1:
        raise ValueError(f"dataset.subset: expected a share above 0 and up to 1, got {subset}")
    if subset == 1:
        return prepared
    config, data = prepared.config, prepared.data
    chosen = []
    for indices in (prepared.train, prepared.validation):
        first = len(data)
        data = with_crops(data, crops_of(data, indices, config, subset))
        chosen.append(range(first, len(data)))
    reduced_config = replace(config, dataset=replace(config.dataset, subset=subset))
    return Prepared(prepared.root, reduced_config, prepared.plan, data, *chosen)


def train_tracked(
    prepared: Prepared,
    *,
    experiment: str,
    name: str,
    runs: Path = RUNS,
    parent: str | None = None,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    watchers: Sequence[Observer] = (),
) -> Trained:
    """Train under an MLflow run; with run_id, go on with that run where it stopped.

    A watcher that stops the training may say why in an attribute `reason`, or that it is only `interrupted`; the run
    then ends KILLED.
    """
    config, data = prepared.config, prepared.data
    if world()[0]:
        return _train_along(prepared, runs, resume=run_id is not None)
    if run_id and not (runs / data.digest / run_id / "run.json").exists():
        raise ValueError(f"--resume {run_id}: {prepared.root} has changed since it was started; restore the data")
    labels = {"data": str(prepared.root), "digest": data.digest, "recipe": config.recipe, **(tags or {})}
    labels |= {"processes": str(world()[1]), "hardware": machine_of(device_of(config.device))}
    start = partial(
        tracking.start,
        experiment,
        name,
        root=Path.cwd(),
        params=flat(config),
        config=to_dict(config),
        tags=labels,
        parent=parent,
        run_id=run_id,
    )
    with alone(start, runs / data.digest, run_id) as (run, folder):
        return _train(run, prepared, name, folder, watchers, resume=run_id is not None)


@contextmanager
def alone(
    start: Callable[[], AbstractContextManager[tracking.Run]], place: Path, run_id: str | None
) -> Iterator[tuple[tracking.Run, Path]]:
    """A run that `start` opens, and its folder in a place, where no other process writes.

    With run_id, that run goes on. Raises ValueError, before it is opened, where another process is going on with it.
    """
    if run_id:
        with only_writer(place / run_id), start() as run:
            yield run, place / run_id
        return
    with start() as run:
        folder = place / run.id
        folder.mkdir(parents=True)
        with only_writer(folder):
            yield run, folder


def _train(
    run: tracking.Run, prepared: Prepared, name: str, folder: Path, watchers: Sequence[Observer], *, resume: bool
) -> Trained:
    """Train in the folder, under a run that is open."""
    from_first(run.id)
    config, data = prepared.config, prepared.data
    write_run(folder, config, prepared.root, ended=False)
    run.dataset(str(prepared.root), data.digest)
    run.describe(_described(prepared))
    tracker = Tracker(run, prepared.data, prepared.validation, config)
    bar = Bar(config, len(prepared.train), name)
    best = fit(
        config,
        prepared.plan,
        data,
        prepared.train,
        prepared.validation,
        folder,
        Observers([bar, *watchers, tracker]),  # a watcher that raises keeps the run as it was
        commit=git_commit(),
        resume=resume,
    )
    bar.close()
    run.artifact(best, "checkpoints")
    run.json(to_dict(prepared.plan), "plan.json")
    reason = next((r for r in (getattr(each, "reason", "") for each in watchers) if r), "")
    if reason or any(getattr(each, "interrupted", False) for each in watchers):
        run.end_as("KILLED", reason)
    else:
        write_run(folder, config, prepared.root, ended=True)
    return Trained(run.id, best, tracker.best, reason)


def _described(prepared: Prepared) -> str:
    """What a person reads above a run's figures."""
    config, train, validation = prepared.config, len(prepared.train), len(prepared.validation)
    what = "images" if config.dataset.subset == 1 else "crops"
    return (
        f"Recipe `{config.recipe}` with {config.model.backbone}, seed {config.seed}: trained on {train} {what} of "
        f"`{prepared.root}`, {validation} held back to validate on."
    )


class Silent:
    """An observer of a process that has nothing to tell."""

    def step(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing to do."""

    def epoch(self, report: EpochReport) -> bool:
        """Go on."""
        return False


def _train_along(prepared: Prepared, runs: Path, resume: bool) -> Trained:
    """The part of a training's further processes: the first one tracks, writes and decides when to stop."""
    run_id = from_first("")
    folder = runs / prepared.data.digest / run_id
    data, train, validation = prepared.data, prepared.train, prepared.validation
    best = fit(prepared.config, prepared.plan, data, train, validation, folder, Silent(), resume=resume)
    return Trained(run_id, best, {}, "")


def run_folder(run_id: str, runs: Path = RUNS) -> Path:
    """The folder of a run that was started on this machine. Raises FileNotFoundError."""
    found = sorted(runs.glob(f"*/{run_id}/run.json")) if run_id else []
    if not found:
        known = sorted(path.parent.name for path in runs.glob("*/*/run.json"))
        raise FileNotFoundError(f"run {run_id!r}: no such run under {runs}; found {', '.join(known) or 'none'}")
    return found[0].parent


def resumed(run_id: str, runs: Path = RUNS) -> tuple[RunConfig, Path]:
    """The config and the data folder of a run that was started on this machine. Raises FileNotFoundError."""
    path = run_folder(run_id, runs) / "run.json"
    content = json.loads(path.read_text())
    return from_dict(RunConfig, content["config"], f"{path}: config"), Path(content["data"])


def last_checkpoint(digest: str, runs: Path = RUNS, **wanted: Any) -> Path:
    """best.pt of the newest training on the data with this digest whose config has the wanted fields.

    One that has not ended counts where no other has, with a warning. The networks of folds, which have not seen all
    images, do not count. Raises FileNotFoundError where there is none.
    """
    candidates = []
    for path in (runs / digest).glob("*/best.pt"):
        known = json.loads((path.parent / "run.json").read_text())
        config = known["config"]
        if config["dataset"].get("folds"):
            continue
        if all(value is None or config[field] == value for field, value in wanted.items()):
            candidates.append((known.get("ended", True), path.stat().st_mtime, path))
    if not candidates:
        raise FileNotFoundError(
            f"{runs / digest}: no training on this data; run `python experiments/final_train.py` first, "
            f"or name a checkpoint with --checkpoint"
        )
    ended, _, newest = max(candidates)
    if not ended:
        log.warning(
            "%s: its training has not ended; `python experiments/final_train.py --resume %s` goes on with it",
            newest,
            newest.parent.name,
        )
    return newest


def write_run(folder: Path, config: RunConfig, root: Path, **more: Any) -> None:
    """What --resume needs, also before the first epoch has ended, and whatever else is to be known of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"config": to_dict(config), "data": str(root.resolve()), **more}
    write_whole(json.dumps(content, indent=1), folder / "run.json")
