"""Train the network that is handed in, with the recipe or with a study's winner, tracked in MLflow."""

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
    from cellseg.experiment import prepare, resumed, train_tracked
    from cellseg.winner import read_winner

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
            print(f"study {winner.study}: trial {winner.trial} with {winner.score}")
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
            print(f"validation {figure:14} {trained.metrics[f'best/{figure}']:.3f}")
    print(f"run        {trained.run_id} (`mlflow ui` shows it)")
    print(f"checkpoint {trained.best}")
    return 0


if __name__ == "__main__":
    main()
