"""Train the network that is handed in, with the recipe or with a study's winner, tracked in MLflow.

`torchrun --nproc-per-node 4 experiments/final_train.py` trains it on four GPUs.
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg.command_line import TrainingOptions, parse_training, set_by_hand, user_errors_in_one_line
from cellseg.data_folder import require_data

if TYPE_CHECKING:
    from cellseg.checkpoint import Checkpoint
    from cellseg.config import RunConfig
    from cellseg.dataset import DataSet
    from cellseg.experiment import Prepared, Trained

EXPERIMENT = "cellseg-final"


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of the final training."""

    from_study: str | None = None
    """name of the study whose winner is trained; by default the newest one on the same data and recipe, if any"""
    all_data: bool = False
    """train on all images; then nothing is validated and the last network is the best"""
    folds: int = 0
    """first train so many networks, each without a fold of the images: their results there choose epochs, calibration
    and threshold of the final one, which is trained on all images; 0 trains one network"""
    fine_tune: Path | None = None
    """a best.pt to begin with: its network, colours and scale, and the classes of the same names; other fields are the
    recipe's, and no study's winner is taken"""
    hours: float | None = None
    """train for as many epochs as end within these hours, all folds together, from this command on"""
    resume: str | None = None
    """id of an MLflow run that was interrupted: go on with it, under its own config"""
    runs: Path = Path("experiments/runs")
    """where checkpoints go: <digest of the data>/<run id>/best.pt"""
    register: bool = True
    """make the network a version of the registered model `cellseg`, with the alias `best` if it is that"""
    studies: Path = Path("search/results")
    """where search/optuna_study.py left its winners"""


@user_errors_in_one_line
def main() -> int:
    """Train; print where the checkpoint lies."""
    begun = time.monotonic()
    options = parse_training(Options, __doc__)
    if not options.resume:
        require_data(options.data)
    from cellseg.device import device_of
    from cellseg.distributed import joined, own_device

    with joined(own_device(device_of(options.config.device))):
        return train(options, begun)


def train(options: Options, begun: float) -> int:
    """Train in this process, or in all that torchrun has started; the first one prints."""
    from cellseg.distributed import world
    from cellseg.folds import is_folds_run

    if world()[0]:
        logging.getLogger("cellseg").setLevel(logging.WARNING)
    refuse_contradictions(options)
    start = start_of(options, begun)
    in_folds = options.folds or (options.resume and is_folds_run(options.resume, options.runs))
    trained, ap50 = with_folds(options, start) if in_folds else alone(options, start)
    say(f"run        {trained.run_id} (`mlflow ui` shows it)")
    say(f"checkpoint {trained.best}")
    if options.register and world()[0] == 0:
        say(f"registered {registered(trained, ap50)}")
    return 0


def registered(trained: "Trained", ap50: float | None) -> str:
    """The address of the registered network, and who is best."""
    from cellseg.tracking import register

    made = register(trained.run_id, ap50, root=Path.cwd())
    if not made:
        return "once MLflow answers again, by `cellseg track sync`"
    version, best = made
    return f"models:/cellseg/{version}{', now models:/cellseg@best' if best else '; models:/cellseg@best is better'}"


@dataclass(frozen=True)
class Start:
    """What a training starts from."""

    config: "RunConfig"
    root: Path
    data: "DataSet"
    source: "Checkpoint | None"
    """to be fine-tuned"""
    begun: float
    """when the command was, by time.monotonic"""


def refuse_contradictions(options: Options) -> None:
    """Raise ValueError where two options exclude each other."""
    if options.folds and options.all_data:
        raise ValueError("--all-data: --folds holds back one fold after the other, and ends with all; leave one out")
    by_hand = set_by_hand(options.config)
    if options.hours is not None and options.resume:
        raise ValueError(f"--hours: run {options.resume} goes on to the epochs that it was begun with; leave one out")
    if options.hours is not None and "train.epochs" in by_hand:
        raise ValueError("--hours: they tell how many epochs; leave --train.epochs out")
    if options.fine_tune and options.from_study:
        raise ValueError("--from-study: --fine-tune takes the settings of its checkpoint; leave one out")
    if options.fine_tune and (options.weights is not None or "model.weights" in by_hand):
        raise ValueError("--weights: --fine-tune begins with those of its checkpoint; leave one out")


def start_of(options: Options, begun: float) -> Start:
    """The opened data, and the config as the options have it or as it was when the run to be resumed was begun."""
    from cellseg.checkpoint import load
    from cellseg.experiment import opened, resumed
    from cellseg.fine_tune import at_its_scale, begun_from
    from cellseg.weights import require_weights

    if options.resume:
        config, root = resumed(options.resume, options.runs)
        if options.folds not in (0, config.dataset.folds):
            raise ValueError(f"--folds: run {options.resume} has {config.dataset.folds} folds, got {options.folds}")
        return Start(config, root, opened(config, root), None, begun)
    config, root = options.config, options.data
    require_weights(config.model)
    if options.folds:
        config = replace(config, dataset=replace(config.dataset, folds=options.folds, fold=0))
    elif options.all_data:
        config = replace(config, dataset=replace(config.dataset, folds=0, fold=0, validation_fraction=0.0))
    if not options.fine_tune:
        return Start(config, root, opened(config, root), None, begun)
    source = load(options.fine_tune)
    config = begun_from(options.fine_tune, source, config, set_by_hand(options.config))
    data = opened(config, root)
    return Start(at_its_scale(source, config, data.mpp), root, data, source, begun)


def alone(options: Options, start: Start) -> tuple["Trained", float | None]:
    """Train one network; print how good it is on the images that were held back, and return its AP50 there."""
    from cellseg.experiment import planned, train_tracked
    from cellseg.fine_tune import warn_of_peeking
    from cellseg.run_names import run_name, title

    prepared = planned(start.config, start.root, start.data)
    config, tags = with_winner(options, prepared.config, start)
    if start.source:
        warn_of_peeking(start.source, start.data, prepared.validation)
    config, hours = with_hours(options, config, replace(prepared, config=config), start)
    prepared = replace(prepared, config=config)
    trained = train_tracked(
        prepared,
        experiment=EXPERIMENT,
        name=run_name(f"final · {title(prepared.config)}", prepared.config),
        runs=options.runs,
        run_id=options.resume,
        tags=tags | hours,
    )
    for figure in ("AP50", "AP", "AP50_uncapped", "AP_uncapped"):
        if f"best/{figure}" in trained.metrics:
            say(f"validation {figure:14} {trained.metrics[f'best/{figure}']:.3f}")
    return trained, trained.metrics.get("best/AP50")


def with_folds(options: Options, start: Start) -> tuple["Trained", float]:
    """Train a network for each fold and the final one; print how good the former are on unseen images.

    Returns the final one and their AP50, mean over the folds, with the calibration that it has.
    """
    from cellseg.experiment import planned
    from cellseg.fine_tune import warn_of_peeking
    from cellseg.folds import train_folds

    config, tags = with_winner(options, start.config, start)
    if start.source:
        warn_of_peeking(start.source, start.data, range(len(start.data)))
    if options.hours is not None:
        config, hours = with_hours(options, config, planned(config, start.root, start.data), start)
        tags |= hours
    root, data, runs, run_id = start.root, start.data, options.runs, options.resume
    folded = train_folds(config, root, data, experiment=EXPERIMENT, runs=runs, run_id=run_id, tags=tags)
    learnt = folded.out_of_fold
    for figure in ("AP50", "AP", "PQ"):
        together, plain, calibrated = (
            each[figure] for each in (learnt.plain.metrics, learnt.plain_mean, learnt.calibrated_mean)
        )
        say(f"out of fold {figure:5} {together:.3f}; mean over folds {plain:.3f}, calibrated {calibrated:.3f}")
    say(f"calibration {'kept' if learnt.calibration else 'dropped'}, pq threshold {learnt.pq_threshold:.2f}")
    say(f"folds      {folded.run_id}; the final network has seen all images for {folded.epochs} epochs")
    return folded.final, learnt.kept_mean["AP50"]


def with_winner(options: Options, config: "RunConfig", start: Start) -> tuple["RunConfig", dict[str, str]]:
    """The config with the fields of a study's winner that no option sets, and the tag that names the study."""
    from cellseg.winner import read_winner

    if options.resume or options.fine_tune:
        return config, {}
    winner = read_winner(options.studies, start.data.digest, config.recipe, options.from_study)
    if not winner:
        return config, {}
    say(f"study {winner.study}: trial {winner.trial} with {winner.score}")
    return winner.applied(config, set_by_hand(start.config)), {"study": winner.study}


def with_hours(
    options: Options, config: "RunConfig", prepared: "Prepared", start: Start
) -> tuple["RunConfig", dict[str, str]]:
    """The config with the epochs that the hours have room for, as the prepared training takes them, and their tag."""
    from cellseg.budget import epochs_for

    if options.hours is None:
        return config, {}
    epochs, said = epochs_for(prepared, options.hours, start.begun, options.runs, options.folds)
    say(said)
    return replace(config, train=replace(config.train, epochs=epochs)), {"hours": f"{options.hours:g}"}


def say(line: str) -> None:
    """Print, in the first process alone."""
    from cellseg.distributed import world

    if world()[0] == 0:
        print(line)


if __name__ == "__main__":
    main()
