"""How long commands take before they do anything, and which imports take it. Not a claim against anybody."""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cellseg.sample import write

ROOT = Path(__file__).parents[1]
REPEATS = 5
HEAVY = ("torch", "torchvision", "mlflow", "cv2", "scipy", "faster_coco_eval", "matplotlib", "numpy", "tyro", "optuna")


def main() -> None:
    """Print seconds from call to exit, and the seconds of the imports that count."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write(data, train=2, test=2)
        results = Path(folder) / "results.json"
        results.write_text("[]")
        cellseg = ("-m", "cellseg")
        commands = {
            "cellseg --help": (*cellseg, "--help"),
            "final_train.py --help": (str(ROOT / "experiments/final_train.py"), "--help"),
            "optuna_study.py --help": (str(ROOT / "search/optuna_study.py"), "--help"),
            "cellseg score": (*cellseg, "score", str(results), str(data / "test_truth.json")),
            "cellseg inspect --figure none": (*cellseg, "inspect", str(data), "--figure", "none"),
            "import of all that a training needs": ("-c", "import cellseg.experiment"),
        }
        print(f"{'command':36} seconds  of which imports")
        for name, command in commands.items():
            print(f"{name:36} {seconds_of(command):7.2f}  {', '.join(imports_of(command))}", flush=True)


def seconds_of(command: Sequence[str], repeats: int = REPEATS) -> float:
    """Median seconds of a Python command, after one call that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


def imports_of(command: Sequence[str]) -> list[str]:
    """The packages that take over a tenth of a second to import, with all that they bring that was not there yet."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True)
    lines = re.findall(r"import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)", done.stderr)
    seconds = {name: int(microseconds) / 1e6 for microseconds, name in lines if name in HEAVY}
    return [f"{name} {each:.1f}" for name, each in sorted(seconds.items(), key=lambda pair: -pair[1]) if each >= 0.1]


if __name__ == "__main__":
    main()
