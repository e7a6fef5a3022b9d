"""Search anchor sizes, aspect ratios, learning rate and warm-up fraction around a recipe, tracked in MLflow.

Trials are short trainings on a fixed share of the data; the best are then trained in full with several seeds, and the
best mean wins. Call it again, here or on another machine with the same storage, to help or to go on.
"""

import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cellseg.command_line import TrainingOptions, parse_training, user_errors_in_one_line
from cellseg.data_folder import require_data

if TYPE_CHECKING:
    import optuna
    from study_outcome import Outcome

    from cellseg.tracking import Run


LEAST = {"trials": 1, "workers": 0, "trial_epochs": 1, "finalists": 0, "final_seeds": 1, "heartbeat": 1}


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of a study."""

    trials: int = 20
    """trials that the study shall have when the command ends; those of earlier calls and other workers count"""
    space: Literal["card", "wide"] = "card"
    """card: anchors, learning rate, warm-up; wide: also optimizer, weight decay, zoom, both NMS, positive fraction"""
    workers: int = 0
    """processes that run trials; 0: one a GPU, or one without GPUs"""
    trial_epochs: int | None = None
    """epochs of a trial; by default a fifth of the recipe's"""
    subset: float = 0.5
    """share of the training and validation pixels that trials see, the same crops for all; 1 is everything"""
    pruner: Literal["median", "halving", "none"] = "median"
    """what stops trials that fall behind, once the longest warm-up of the space is over"""
    finalists: int = 3
    """the best so many trials are trained in full; 0 takes the best trial's word"""
    final_seeds: int = 3
    """seeds that each of them is trained with"""
    yardsticks: Literal["gated", "trials", "finals"] = "trials"
    """torchvision's and the reference's anchors: refused if they cannot win; trained as trials; trained in full too"""
    study: str | None = None
    """name; a study of this name is continued; by default <recipe>-<digest of the data>, and -wide"""
    storage: str = "sqlite:///optuna.db"
    """where Optuna keeps studies: sqlite:///FILE, or for several machines postgresql://USER:PASSWORD@HOST/DATABASE"""
    heartbeat: int = 20
    """seconds between signs of life; a trial that misses three is run again by another worker"""
    results: Path = Path("search/results")
    """tables, study.md and best.json go to <results>/<study>/"""
    runs: Path = Path("search/runs")
    """where the trials' checkpoints go"""
    worker: int = 0
    """set by this command in the processes that it starts: its own process id"""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')}: expected at least {least}, got {value}")
        if self.study is not None and (not self.study or "/" in self.study or self.study.startswith(".")):
            raise ValueError(f"--study: expected a name that a folder can have, got {self.study!r}")


@user_errors_in_one_line
def main() -> int:
    """Search, alone or with workers; tell what was found."""
    options = parse_training(Options, __doc__)
    require_data(options.data)
    from storage import one_line_if_lost

    with one_line_if_lost(options.storage):
        return search(options)


def search(options: Options) -> int:
    """The exit code: 0 once all trials have ended."""
    import parent_run
    from ladder import Finals, bury_trial, climb
    from objective import Task
    from processes import gpus, spawn
    from rungs import prepare_rungs
    from storage import open_storage
    from study import open_study
    from study_outcome import read_outcome
    from workers import Stop

    from cellseg.device import device_of
    from cellseg.weights import require_weights

    if options.worker:
        logging.getLogger("cellseg").setLevel(logging.WARNING)  # the command that started it has said it all
    device_of(options.config.device)  # what cannot work is refused before anything is written
    require_weights(options.config.model)
    rungs = prepare_rungs(options.config, options.data, options.trial_epochs, options.subset, options.space)
    storage = open_storage(options.storage, options.heartbeat)
    name = options.study or default_name(options, rungs.finals.data.digest)
    study = open_study(name, storage, rungs.trials, rungs.finals.config, options.space, options.pruner)
    finals = Finals(options.finalists, options.final_seeds, options.yardsticks == "finals")

    def climb_along(parent: str | None) -> int:
        with Stop(options.worker or None) as stop:
            known = (rungs.trials, rungs.finals, rungs.cells, options.space, options.yardsticks != "gated")
            climb(study, storage, Task(*known, options.runs, parent, stop), options.trials, finals, stop)
        return 0

    if options.worker:
        return climb_along(parent_run.find(study))
    devices = gpus(options.config.device)
    count = options.workers or max(1, len(devices))
    with parent_run.opened(study, storage, rungs.finals) as run:
        try:
            return spawn(count, devices, partial(bury_trial, study, storage)) if count > 1 else climb_along(run.id)
        finally:
            report(options, study, read_outcome(study, storage, finals.seeds_from(options.config.seed)), run)


def default_name(options: Options, digest: str) -> str:
    """The name of a study that none was given for."""
    return f"{options.config.recipe}-{digest}{'-wide' if options.space == 'wide' else ''}"


def report(options: Options, study: "optuna.Study", outcome: "Outcome", run: "Run") -> None:
    """Write what the study has brought so far, keep it with the study's run, and print it."""
    import parent_run
    from storage import shown
    from study_report import write_report

    command = ["python", *(word.replace(options.storage, shown(options.storage)) for word in sys.argv)]
    files = write_report(outcome, options.results, shlex.join(command))
    parent_run.log(run, study, outcome, files)
    print("\n".join(printed(outcome, files)))


def printed(outcome: "Outcome", files: Mapping[str, Path]) -> list[str]:
    """What a person reads at the end."""
    if "study.md" not in files:
        return [f"study {outcome.name}: no trial has come to its end yet", f"trials {files['trials.csv']}"]
    summary = files["study.md"].read_text().splitlines()
    return [
        f"study {outcome.name}: {len(outcome.trials)} trials",
        *(line.replace("**", "").replace("`", "") for line in summary if line.startswith("- ")),
        f"winner {files['best.json']}; `python experiments/final_train.py` trains it, `mlflow ui` shows the trials",
    ]


if __name__ == "__main__":
    main()
