"""Accuracy for a given time of training: our recipes against plain torchvision and the published solution.

Each recipe's seconds a step are measured once, on a machine that should be quiet, and fix its number of steps. All
train on the same images and the same device, and are scored on the same held-out ones; validation is not in the time.
PQ is that of the detections with a score of at least .5 in every row, whatever threshold a recipe has.
Call it again after a stop: finished trainings are kept, others go on.
"""

import argparse
from pathlib import Path

import records
from accuracy_table import report

from cellseg.command_line import user_errors_in_one_line  # says, before torch starts its threads, how they wait
from cellseg.data_folder import require_data

HERE = Path(__file__).parent / "accuracy"
RECIPES = (
    "reference, torchvision, torchvision-large, torchvision-slim, or one of ours such as demo+mask56-ema "
    "(see ingredients.py); "
    "torchvision-resnet101 and reference-resnet101 have the backbone of best+scratch; "
    "demo@2 is demo in two processes, demo:start.pt is demo begun from a checkpoint"
)


@user_errors_in_one_line
def main() -> int:
    """Measure, train what is not on record, print."""
    options = parsed()
    file = options.out / f"{options.data.resolve().stem}.json"
    if not options.only_report:
        require_data(options.data)
        from contest import Terms, hold

        budget = f"{options.steps} steps" if options.steps else f"{options.minutes:g} min"
        seconds, split = options.minutes * 60, options.split_seed
        terms = Terms(options.data, file, budget, seconds, options.steps, options.device, split, options.clock)
        hold(terms, options.recipes, options.seeds)
    print(report(records.read(file).records, options.recipes))
    return 0


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=[], metavar="RECIPE", help=f"{RECIPES}; none trains nothing")
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder with train/, or a COCO json file")
    parser.add_argument("--minutes", type=float, default=15.0, help="of training, for each recipe and seed")
    parser.add_argument("--steps", type=int, help="of each training, instead of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="SEED")
    parser.add_argument("--split-seed", type=int, default=0, help="which images are held out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--clock", metavar="NAME", help="go on with a table of another machine, by its rates on record")
    parser.add_argument("--out", type=Path, default=HERE, help="where <data>.json and runs/ lie")
    parser.add_argument("--only-report", action="store_true", help="print what is on record and train nothing")
    options = parser.parse_args()
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps: expected at least 1, got {options.steps}")
    return options


if __name__ == "__main__":
    main()
