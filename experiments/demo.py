"""The whole way in minutes on a CPU: sample data, search, final training, submission, score. Writes under demo/ alone.

Each stage is the command that a user would type; `mlflow ui` shows their runs.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

DEMO = Path("demo")
CELLSEG = [sys.executable, "-m", "cellseg"]
TRAINING = ["--data", "demo/data", "--recipe", "demo"]
STAGES = {
    "sample": [*CELLSEG, "sample", "demo/data"],
    "search": [
        *(sys.executable, "search/optuna_study.py", *TRAINING, "--trials", "4"),
        *("--finalists", "0", "--yardsticks", "gated"),
        *("--storage", "sqlite:///demo/optuna.db", "--results", "demo/studies", "--runs", "demo/trials"),
    ],
    "train": [
        *(sys.executable, "experiments/final_train.py", *TRAINING),
        *("--studies", "demo/studies", "--runs", "demo/runs"),
    ],
    "submit": [
        *(sys.executable, "experiments/submit.py", "--data", "demo/data"),
        *("--runs", "demo/runs", "--out", "demo/submission.zip"),
    ],
    "score": [*CELLSEG, "score", "demo/submission.zip", "demo/data/test_truth.json", "--json"],
}


class PeakMemory:
    """Largest resident memory of a process tree, sampled ten times a second."""

    def __init__(self) -> None:
        self.bytes = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self.done.wait(0.1):
            total = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:  # it ended between the two calls
                    continue
            self.bytes = max(self.bytes, total)


def main() -> int:
    """Run all stages; print and write what came out."""
    if DEMO.exists():
        shutil.rmtree(DEMO)
    DEMO.mkdir()
    seconds: dict[str, float] = {}
    printed = ""
    with PeakMemory() as memory:
        for stage, command in STAGES.items():
            print(f"== {stage}", flush=True)
            started = time.monotonic()
            done = subprocess.run(command, stdout=subprocess.PIPE if stage == "score" else None, text=True, check=False)
            if done.returncode:
                return done.returncode
            seconds[stage] = round(time.monotonic() - started, 1)
            printed = done.stdout
            if stage == "train":
                (best,) = DEMO.glob("runs/*/*/best.pt")
                shutil.copy(best, DEMO / "best.pt")
    picture()
    report(json.loads(printed), seconds, round(memory.bytes / 2**20))
    return 0


def picture() -> None:
    """Write demo/demo.png: a test image, its truth and what was found; the smallest image of the most classes."""
    from cellseg.images import read_image
    from cellseg.json_files import read_results, read_truth
    from cellseg.label_maps import paint
    from cellseg.plots import drawn, save, triptych

    truth, results = read_truth(DEMO / "data/test_truth.json"), read_results(DEMO / "submission.zip")
    cells = {
        image["id"]: [a for a in truth["annotations"] if a["image_id"] == image["id"]] for image in truth["images"]
    }
    classes = {image_id: len({cell["category_id"] for cell in each}) for image_id, each in cells.items()}
    shown = max(truth["images"], key=lambda image: (classes[image["id"]], -image["height"] * image["width"]))
    size_hw, names = (shown["height"], shown["width"]), [each["name"] for each in truth["categories"]]
    own = cells[shown["id"]]
    true_maps = paint([c["segmentation"] for c in own], [c["category_id"] for c in own], len(names), size_hw)
    found = [result for result in results if result["image_id"] == shown["id"]]
    image = read_image(DEMO / "data/test_release" / shown["file_name"], channel_order="bgr")
    save(triptych(image, true_maps, drawn(found, len(names), 0.5, size_hw), names), DEMO / "demo.png")


def report(scores: dict[str, object], seconds: dict[str, float], peak_rss_mb: int) -> None:
    """Print the table; write demo/demo.json."""
    names = ("AP50", "AP", "AP50_uncapped", "AP_uncapped")
    figures = {name: scores[name] for name in names}
    (DEMO / "demo.json").write_text(json.dumps({**figures, "seconds": seconds, "peak_rss_mb": peak_rss_mb}, indent=1))
    print("\non the sample's test images:")
    print(f"{'':14}" + "".join(f"{name:>15}" for name in names))
    print(f"{'all classes':14}" + "".join(f"{figures[name]:15.3f}" for name in names))
    for label, each in scores["per_class"].items():  # type: ignore[attr-defined]
        print(f"{label:14}" + "".join(f"{each[name]:15.3f}" for name in names))
    print("\n" + "  ".join(f"{stage} {spent:.0f} s" for stage, spent in seconds.items()))
    print(f"in all {sum(seconds.values()):.0f} s, peak memory {peak_rss_mb} MB")
    print("wrote demo/data, demo/best.pt, demo/submission.zip, demo/demo.json, demo/demo.png")
    print("`mlflow ui` shows the runs")


if __name__ == "__main__":
    sys.exit(main())
