"""Train the network that is handed in, with the recipe or with a study's winner, tracked in MLflow.

`torchrun --nproc-per-node 4 experiments/final_train.py` trains it on four GPUs.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from cellseg.command_line import TrainingOptions, chosen_by_hand, parse_training, user_errors_in_one_line
from cellseg.data_folder import require_data


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of the final training."""

    from_study: str | None = None
    """name of the study whose winner is trained; by default the newest one on the same data and recipe, if any"""
    all_data: bool = False
    """train on all images; then nothing is validated and the last network is the best"""
    resume: str | None = None
    """id of an MLflow run that was interrupted: go on with it, under its own config"""
    runs: Path = Path("experiments/runs")
    """where checkpoints go: <digest of the data>/<run id>/best.pt"""
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
    from cellseg.experiment import prepare, resumed, train_tracked
    from cellseg.winner import read_winner

    if world()[0]:
        logging.getLogger("cellseg").setLevel(logging.WARNING)
    config, root = options.config, options.data
    if options.resume:
        config, root = resumed(options.resume, options.runs)
    elif options.all_data:
        config = replace(config, dataset=replace(config.dataset, validation_fraction=0.0))
    prepared = prepare(config, root)
    study = ""
    if not options.resume:
        winner = read_winner(options.studies, prepared.data.digest, config.recipe, options.from_study)
        if winner:
            study = winner.study
            prepared = replace(prepared, config=winner.applied(prepared.config, chosen_by_hand(config)))
            say(f"study {winner.study}: trial {winner.trial} with {winner.score}")
    trained = train_tracked(
        prepared,
        experiment="cellseg-final",
        name=f"final · {prepared.config.recipe} · {prepared.config.model.backbone} · seed {prepared.config.seed}",
        runs=options.runs,
        run_id=options.resume,
        tags={"study": study} if study else {},
    )
    for figure in ("AP50", "AP", "AP50_uncapped", "AP_uncapped"):
        if f"best/{figure}" in trained.metrics:
            say(f"validation {figure:14} {trained.metrics[f'best/{figure}']:.3f}")
    say(f"run        {trained.run_id} (`mlflow ui` shows it)")
    say(f"checkpoint {trained.best}")
    return 0


def say(line: str) -> None:
    """Print, in the first process alone."""
    from cellseg.distributed import world

    if world()[0] == 0:
        print(line)


if __name__ == "__main__":
    main()
