"""What each ingredient of prediction is worth: the networks of the accuracy benchmark, asked in other ways.

Nothing is trained. Each network predicts the held-out images as its recipe does, and once more for each setting;
differences are of the same network. Call it again after a stop: what is on record is not predicted again.
"""

import argparse
from pathlib import Path

from answers import SETTINGS, read, report
from records import folder_of

from cellseg.command_line import user_errors_in_one_line  # says, before torch starts its threads, how they wait
from cellseg.data_folder import require_data

HERE = Path(__file__).parent / "accuracy"
BUDGET = "15 min"


@user_errors_in_one_line
def main() -> int:
    """Predict what is not on record, print."""
    options = parsed()
    trained = options.out / f"{options.data.resolve().stem}.json"
    budget = "" if options.budget == BUDGET else f"-{options.budget.replace(' ', '-')}"
    split = f"-split{options.split_seed}" if options.split_seed else ""
    file = trained.with_name(f"{trained.stem}-{options.recipe.replace('/', '-')}{budget}{split}-inference.json")
    if not options.only_report:
        require_data(options.data)
        paths = {
            seed: folder_of(trained, options.recipe, options.budget, seed, options.split_seed) / "last.pt"
            for seed in options.seeds
        }
        if missing := [path for path in paths.values() if not path.exists()]:
            raise FileNotFoundError(f"{missing[0]}: no such network; train it with benchmarks/accuracy.py")
        from asked import ask

        ask(options, paths, file)
    print(report(read(file), options.settings or list(SETTINGS)))
    return 0


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="best-cpu", help="that benchmarks/accuracy.py has trained")
    parser.add_argument("--budget", default=BUDGET, help="that it was trained for, as its folder is named")
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder with train/, or a COCO json file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="SEED")
    parser.add_argument("--split-seed", type=int, default=0, help="which images were held out")
    said = f"by default all that the recipe has: {'; '.join(SETTINGS)}"
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, metavar="SETTING", help=said)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--out", type=Path, default=HERE, help="where the answers and runs/ lie")
    parser.add_argument("--only-report", action="store_true", help="print what is on record and predict nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
