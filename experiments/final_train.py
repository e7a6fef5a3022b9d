"""Train the network that is handed in, with the recipe or with a study's winner, tracked in MLflow.

`torchrun --nproc-per-node 4 experiments/final_train.py` trains it on four GPUs.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg.command_line import TrainingOptions, chosen_by_hand, parse_training, user_errors_in_one_line
from cellseg.data_folder import require_data

if TYPE_CHECKING:
    from cellseg.config import RunConfig
    from cellseg.experiment import Trained

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
    options = parse_training(Options, __doc__)
    if not options.resume:
        require_data(options.data)
    from cellseg.device import device_of
    from cellseg.distributed import joined, own_device

    with joined(own_device(device_of(options.config.device))):
        return train(options)


def train(options: Options) -> int:
    """Train in this process, or in all that torchrun has started; the first one prints."""
    from cellseg.distributed import world
    from cellseg.experiment import resumed
    from cellseg.folds import is_folds_run

    if world()[0]:
        logging.getLogger("cellseg").setLevel(logging.WARNING)
    config, root = options.config, options.data
    if options.folds and options.all_data:
        raise ValueError("--all-data: --folds holds back one fold after the other, and ends with all; leave one out")
    if options.folds:
        config = replace(config, dataset=replace(config.dataset, folds=options.folds, fold=0))
    elif options.all_data:
        config = replace(config, dataset=replace(config.dataset, folds=0, fold=0, validation_fraction=0.0))
    if options.resume:
        config, root = resumed(options.resume, options.runs)
        if options.folds not in (0, config.dataset.folds):
            raise ValueError(f"--folds: run {options.resume} has {config.dataset.folds} folds, got {options.folds}")
    in_folds = options.folds or (options.resume and is_folds_run(options.resume, options.runs))
    trained, ap50 = with_folds(options, config, root) if in_folds else alone(options, config, root)
    say(f"run        {trained.run_id} (`mlflow ui` shows it)")
    say(f"checkpoint {trained.best}")
    if options.register and world()[0] == 0:
        say(f"registered {registered(trained, ap50)}")
    return 0


def registered(trained: "Trained", ap50: float | None) -> str:
    """The address of the registered network, and who is best."""
    from cellseg.tracking import register

    version, best = register(trained.run_id, ap50, root=Path.cwd())
    return f"models:/cellseg/{version}{', now models:/cellseg@best' if best else '; models:/cellseg@best is better'}"


def alone(options: Options, config: "RunConfig", root: Path) -> tuple["Trained", float | None]:
    """Train one network; print how good it is on the images that were held back, and return its AP50 there."""
    from cellseg.experiment import prepare, train_tracked
    from cellseg.run_names import run_name, title

    prepared = prepare(config, root)
    tags: dict[str, str] = {}
    if not options.resume:
        chosen, tags = with_winner(options, prepared.config, config, prepared.data.digest)
        prepared = replace(prepared, config=chosen)
    trained = train_tracked(
        prepared,
        experiment=EXPERIMENT,
        name=run_name(f"final · {title(prepared.config)}", prepared.config),
        runs=options.runs,
        run_id=options.resume,
        tags=tags,
    )
    for figure in ("AP50", "AP", "AP50_uncapped", "AP_uncapped"):
        if f"best/{figure}" in trained.metrics:
            say(f"validation {figure:14} {trained.metrics[f'best/{figure}']:.3f}")
    return trained, trained.metrics.get("best/AP50")


def with_folds(options: Options, config: "RunConfig", root: Path) -> tuple["Trained", float]:
    """Train a network for each fold and the final one; print how good the former are on unseen images.

    Returns the final one and their AP50, with the calibration that it has.
    """
    from cellseg.experiment import opened
    from cellseg.folds import train_folds

    data = opened(config, root)
    tags: dict[str, str] = {}
    if not options.resume:
        config, tags = with_winner(options, config, config, data.digest)
    folded = train_folds(config, root, data, experiment=EXPERIMENT, runs=options.runs, run_id=options.resume, tags=tags)
    learnt = folded.out_of_fold
    for figure in ("AP50", "AP", "PQ"):
        plain, calibrated = learnt.plain.metrics[figure], learnt.calibrated.metrics[figure]
        say(f"out of fold {figure:5} {plain:.3f}, calibrated {calibrated:.3f}")
    say(f"calibration {'kept' if learnt.calibration else 'dropped'}, pq threshold {learnt.pq_threshold:.2f}")
    say(f"folds      {folded.run_id}; the final network has seen all images for {folded.epochs} epochs")
    return folded.final, (learnt.calibrated if learnt.calibration else learnt.plain).metrics["AP50"]


def with_winner(
    options: Options, config: "RunConfig", by_hand: "RunConfig", digest: str
) -> tuple["RunConfig", dict[str, str]]:
    """The config with the fields of a study's winner that `by_hand` leaves open, and the tag that names the study."""
    from cellseg.winner import read_winner

    winner = read_winner(options.studies, digest, config.recipe, options.from_study)
    if not winner:
        return config, {}
    say(f"study {winner.study}: trial {winner.trial} with {winner.score}")
    return winner.applied(config, chosen_by_hand(by_hand)), {"study": winner.study}


def say(line: str) -> None:
    """Print, in the first process alone."""
    from cellseg.distributed import world

    if world()[0] == 0:
        print(line)


if __name__ == "__main__":
    main()
