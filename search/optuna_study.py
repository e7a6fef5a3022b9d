"""Search anchor sizes, aspect ratios, learning rate and warm-up fraction around a recipe, tracked in MLflow."""

from dataclasses import dataclass, replace
from pathlib import Path

from cellseg.command_line import TrainingOptions, parse_training, user_errors_in_one_line
from cellseg.data_folder import require_data


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of a study."""

    trials: int = 20
    """trials that the study shall have when the command ends; those of earlier calls count"""
    study: str | None = None
    """name; a study of this name is continued; by default <recipe>-<digest of the data>"""
    storage: str = "sqlite:///optuna.db"
    """where Optuna keeps studies: an SQLAlchemy address"""
    trial_epochs: int | None = None
    """epochs of a trial; by default a fifth of the recipe's"""
    results: Path = Path("search/results")
    """the winner goes to <results>/<study>/best.json"""
    runs: Path = Path("search/runs")
    """where the trials' checkpoints go"""


@user_errors_in_one_line
def main() -> int:
    """Search; print the winner."""
    options = parse_training(Options, __doc__)
    require_data(options.data)
    from study import open_study, run_study

    from cellseg.experiment import prepare

    train = options.config.train
    epochs = options.trial_epochs or max(1, round(train.epochs / 5))
    config = replace(options.config, train=replace(train, epochs=epochs, patience=0))
    prepared = prepare(config, options.data)
    name = options.study or f"{config.recipe}-{prepared.data.digest}"
    study = open_study(name, options.storage, prepared)
    winner, path = run_study(study, prepared, trials=options.trials, runs=options.runs, results=options.results)
    print(f"study {name}: {len(study.trials)} trials, best is trial {winner.trial} with AP50 {winner.value:.3f}")
    for field, value in winner.overrides.items():
        print(f"  {field} = {value}")
    print(f"winner {path}; `python experiments/final_train.py` trains it, `mlflow ui` shows the trials")
    return 0


if __name__ == "__main__":
    main()
