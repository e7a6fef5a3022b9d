"""Small studies and predictions again and again in one process: memory, file handles, threads and disk stay flat.

A round is a study of two trials, its folder and its MLflow runs deleted when it is done, and the registered network
loaded anew to predict images into a folder. What the process holds after each round goes to a csv file at once, and in
the end to a plot; the exit code is 1 where the last quarter of the rounds holds more than the second quarter did. The
first quarter warms caches up.
"""

import argparse
import contextlib
import csv
import io
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from statistics import median
from unittest.mock import patch

import psutil

from cellseg.command_line import user_errors_in_one_line  # says, before torch starts its threads, how they wait
from cellseg.config_fields import replaced
from cellseg.recipes import RECIPES

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
sys.path.insert(1, str(ROOT / "search"))
SMALL = {
    "device": "cpu",
    "dataset.workers": 0,
    "augment.crop": 64,
    "model.stages": 2,
    "model.fpn_channels": 16,
    "model.box_head": 16,
    "model.mask_channels": (8,),
    "train.epochs": 2,
    "train.steps_per_epoch": 2,
    "train.batch": 1,
    "predict.zoom": 1.0,
    "predict.tile": 128,
    "predict.overlap": 32,
    "predict.detections": 60,
    "predict.proposals": 100,
}
TRIALS = 2
QUARTERS = 4
"""fewer rounds tell nothing"""


@dataclass(frozen=True)
class Held:
    """What this process holds after a round."""

    seconds: float
    memory_mb: float
    files: int
    """open descriptors"""
    threads: int
    """of the system, those of torch's pools among them"""
    disk_mb: float
    """all files of the work folder and of the folder for temporary ones"""


@dataclass(frozen=True)
class Tolerance:
    """By how much the median of the last quarter may be above that of the second."""

    share: float
    least: float
    unit: str


TOLERANCES = {
    "memory_mb": Tolerance(0.02, 20, "MB"),
    "files": Tolerance(0, 1, "open files"),
    "threads": Tolerance(0, 1, "threads"),
    "disk_mb": Tolerance(0.01, 1, "MB"),
}
"""Memory: pages that the allocator keeps come and go. One file and thread: a pool may open another at any time."""


@user_errors_in_one_line
def main() -> int:
    """Soak, plot and tell."""
    options = parsed()
    logging.getLogger("cellseg").setLevel(logging.WARNING)  # what each round says of the data is the same
    held = soaked(options.minutes, options.out.resolve() / "soak.csv")
    draw(held, options.out / "plots" / "soak.png")
    grown = verdicts(held)
    print("\n".join(grown.values()))
    return any("GREW" in line for line in grown.values())


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40.0, help="how long; at least four rounds are made")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder for soak.csv and plots/soak.png")
    return parser.parse_args()


def soaked(minutes: float, path: Path, least: int = QUARTERS) -> list[Held]:
    """What this process held after each of at least so many rounds; each is a line of the csv file at once."""
    begun = time.monotonic()
    held: list[Held] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file, _work_folder():
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Held))
        _begin()
        while len(held) < least or time.monotonic() - begun < 60 * minutes:
            _study()
            _prediction()
            held.append(held_now(time.monotonic() - begun))
            table.writerow(f"{value:g}" if isinstance(value, int) else f"{value:.3f}" for value in astuple(held[-1]))
            file.flush()
    return held


@contextlib.contextmanager
def _work_folder() -> Iterator[None]:
    """In a folder of its own, with a place for temporary files in it, and runs in a store of its own."""
    with tempfile.TemporaryDirectory(prefix="soak-") as work:
        temporary = Path(work) / "tmp"
        temporary.mkdir()
        with contextlib.chdir(work), patch.object(tempfile, "tempdir", str(temporary)), patch.dict(os.environ):
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what studies print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _begin() -> None:
    """Write data, train a network and register it."""
    from cellseg.experiment import prepare, train_tracked
    from cellseg.registry import register
    from cellseg.sample import write

    write(Path("data"), train=4, test=2)
    prepared = prepare(replaced(RECIPES["demo"](), SMALL), Path("data"))
    with _silent():
        trained = train_tracked(prepared, experiment="cellseg-final", name="first")
    register(trained.run_id, trained.metrics["best/AP50"], root=Path.cwd())


def _study() -> None:
    """A study from nothing; then nothing of it is left."""
    from optuna_study import Options, search

    options = Options(
        config=replaced(RECIPES["demo"](), SMALL),
        data=Path("data"),
        trials=TRIALS,
        trial_epochs=1,
        subset=1.0,
        finalists=0,
        workers=1,
        storage="sqlite:///study/optuna.db",
        results=Path("study/results"),
        runs=Path("study/runs"),
    )
    Path("study").mkdir()
    with _silent():
        search(options)
    shutil.rmtree("study")
    _delete_runs()


def _delete_runs() -> None:
    """Delete the runs of studies for good, with their files."""
    from mlflow import MlflowClient
    from mlflow.cli import gc

    address = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("cellseg-search")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id]):
        client.delete_run(run.info.run_id)
    with _silent(), patch.dict(os.environ, MLFLOW_TRACKING_URI=address):
        gc.main(["--backend-store-uri", address], standalone_mode=False)


def _prediction() -> None:
    """Load the registered network, predict the test images, delete the predictions."""
    import cellseg
    from cellseg.batch import Journal, jobs_of, predict_files

    model = cellseg.load("models:/cellseg@best", device="cpu")
    out = Path("cells")
    jobs = jobs_of([Path("data/test_release")], out)
    failures: list[str] = []
    predict_files(
        model,
        jobs,
        Journal(out, {"checkpoint": model.digest}),
        ("labels", "coco", "geojson", "rois", "csv", "overlay"),
        failed=lambda job, error: failures.append(f"{job.path}: {error}"),
    )
    assert not failures, failures
    shutil.rmtree(out)


def held_now(seconds: float) -> Held:
    """What this process holds."""
    this = psutil.Process()
    memory = this.memory_info().rss / 1e6
    return Held(seconds, memory, this.num_fds(), this.num_threads(), bytes_in(Path.cwd()) / 1e6)


def bytes_in(folder: Path) -> int:
    """The size of all files in a folder; what goes while it is looked at does not count."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def verdicts(held: Sequence[Held]) -> dict[str, str]:
    """A line for each figure: the medians of the second and the last quarter, and whether it GREW."""
    quarter = len(held) // QUARTERS
    lines = {}
    for name, tolerance in TOLERANCES.items():
        figures = [float(asdict(each)[name]) for each in held]
        before, after = median(figures[quarter : 2 * quarter]), median(figures[-quarter:])
        allowed = max(tolerance.least, tolerance.share * before)
        verdict = "flat" if after - before <= allowed else "GREW"
        lines[name] = (
            f"{name}: {verdict}, {before:.1f} in the second quarter of {len(held)} rounds, {after:.1f} in the last; "
            f"up to {allowed:.1f} {tolerance.unit} more are noise"
        )
    return lines


def draw(held: Sequence[Held], path: Path) -> None:
    """A panel for each figure, from 0."""
    from charts import DPI, OURS
    from matplotlib.figure import Figure

    from cellseg.plots import save

    figure = Figure(figsize=(9, 5), dpi=DPI, layout="constrained")
    minutes = [each.seconds / 60 for each in held]
    for axes, (name, tolerance) in zip(figure.subplots(2, 2).flat, TOLERANCES.items(), strict=True):
        figures = [float(asdict(each)[name]) for each in held]
        axes.plot(minutes, figures, color=OURS, linewidth=1)
        axes.set_ylim(0, 1.2 * max(figures))
        axes.set_xlabel("minutes")
        axes.set_ylabel(f"{name.removesuffix('_mb')}, {tolerance.unit}" if "_mb" in name else tolerance.unit)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"one process, {len(held)} studies of {TRIALS} trials and as many predictions", fontsize=11)
    save(figure, path)


if __name__ == "__main__":
    main()
