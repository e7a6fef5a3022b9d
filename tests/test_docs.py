"""Every command that README.md and docs/ show is run, by this file or by the test that is named beside it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scripts import ROOT, SMALL, run

from cellseg.sample import write

CHECKPOINT = ("--checkpoint", "demo/best.pt")
ELSEWHERE = {
    "make test": ".ci/run calls it",
    "make demo": ".ci/run calls it",
    "make bench": "half an hour; test_benchmarks.py runs every claim on its smallest size",
    "python benchmarks/targets.py": "test_benchmarks.py, on its smallest size",
    "python benchmarks/gpu.py": "test_benchmarks.py, on a CPU",
    "python benchmarks/same_seed.py": "test_same_seed.py, on a CPU",
    "python benchmarks/accuracy.py --recipes reference torchvision best-cpu --data data --minutes 15 --seeds 0 1": (
        "an hour and a half; test_accuracy.py, for two steps"
    ),
    "python benchmarks/accuracy.py --recipes best-cpu best-cpu+cascade --data data --minutes 15 --seeds 0 1": (
        "an hour; test_accuracy.py, for two steps"
    ),
    "python benchmarks/accuracy.py --recipes reference-resnet101 torchvision-resnet101 best+scratch --data data "
    "--minutes 60 --seeds 0 1": "hours on a GPU; test_opponents.py builds these networks",
    "python benchmarks/networks.py first.pt second.pt --data data --views 4": "test_networks.py, on tiny networks",
    "python benchmarks/inference.py --recipe best-cpu --data data --seeds 0 1": "test_inference.py, on tiny networks",
    "torchrun --nproc-per-node 4 experiments/final_train.py": "test_scripts.py, in two processes",
    "torchrun --nproc-per-node 4 -m cellseg.cli predict demo/best.pt demo/data/test_release --channel-order bgr "
    "--out cells": "test_predict_command.py, in two processes",
    "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint first:29500 "
    "experiments/final_train.py": "needs two machines; test_scripts.py, in two processes of one",
    "mlflow server --host 0.0.0.0 --backend-store-uri postgresql://user:password@host/mlflow "
    "--artifacts-destination /shared/mlflow": "test_tracking.py tracks through such a server, on SQLite",
    "export MLFLOW_TRACKING_URI=http://server:5000": "test_tracking.py sets it",
    "mlflow ui": "test_mlflow_pages.py opens its pages in a browser",
    "python experiments/final_train.py --folds 5": "test_scripts.py, in two folds",
    "python experiments/final_train.py --resume RUN_ID": "test_scripts.py resumes a run",
    "cellseg report RUN_ID": "test_report.py, of real runs",
    "cellseg sample pretraining/ --train 300 --test 0": "test_cli.py writes a smaller one",
    "python experiments/final_train.py --data pretraining --recipe best-cpu --all-data": (
        "a quarter of an hour; test_scripts.py"
    ),
    "python experiments/final_train.py --recipe best-cpu --fine-tune experiments/runs/DIGEST/RUN_ID/best.pt": (
        "a quarter of an hour; test_scripts.py, in some steps"
    ),
    "python experiments/final_train.py --fine-tune best.pt --classes epithelial lymphocyte plasma": "test_scripts.py",
    "python experiments/final_train.py --hours 8": "test_scripts.py, in a minute",
    "python experiments/submit.py --checkpoint first.pt second.pt third.pt --views 4": "test_scripts.py, with two",
    "python search/optuna_study.py --storage postgresql://user:password@host/database": "test_storage.py, on a server",
    "optuna-dashboard sqlite:///optuna.db": "test_storage.py reads a study through it",
}


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """A root in which the commands of the docs can run in any order: data, a winner, a training, a demo's files."""
    folder = tmp_path_factory.mktemp("documented")
    write(folder / "data", train=2, test=1)
    write(folder / "demo/data", train=2, test=1)
    run(folder, ROOT / "experiments/final_train.py", *SMALL, "--all-data", "--train.epochs", "1")
    (best,) = folder.glob("experiments/runs/*/*/best.pt")
    shutil.copy(best, folder / "demo/best.pt")
    annotate(folder / "annotated")
    shutil.copy(next((folder / "demo/data/test_release").glob("*.tif")), folder / "image.tif")
    run(folder, ROOT / "experiments/submit.py", "--data", "demo/data", "--out", "demo/submission.zip", *CHECKPOINT)
    return folder


def annotate(folder):
    """An image and the outline of a cell, as QuPath exports it."""
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", np.zeros((40, 50, 3), np.uint8), photometric="rgb")
    outline = {"type": "Polygon", "coordinates": [[[3, 4], [20, 4], [20, 30], [3, 4]]]}
    properties = {"objectType": "annotation", "classification": {"name": "lymphocyte", "color": [0, 0, 255]}}
    feature = {"type": "Feature", "geometry": outline, "properties": properties}
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


DOCS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def blocks(language):
    """The blocks of a language in all docs."""
    return [block for path in DOCS for block in re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)]


def commands():
    """The lines of all sh blocks."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("command", sorted(set(commands()) - set(ELSEWHERE)))
def test_a_command_of_the_docs_runs(command, documented):
    """With a network and a schedule small enough for a test, and the sample in data/ and demo/data/."""
    program, *arguments = command.split()
    if program == "cellseg":
        script, arguments = "cellseg", expanded(arguments, documented)
    else:
        assert program == "python"
        script, arguments = ROOT / arguments[0], arguments[1:]
        if script.name != "submit.py":
            arguments += [each for pair in settings(script, arguments) for each in pair]
    run(documented, script, *arguments)


def expanded(arguments, folder):
    """Arguments with the shell's stars resolved; a new folder for the sample, which refuses one that is in use."""
    if arguments == ["sample", "data/"]:
        return ["sample", "made/", "--train", "2", "--test", "1"]
    return [
        each for argument in arguments for each in (sorted(folder.glob(argument)) if "*" in argument else [argument])
    ]


def settings(script, arguments):
    """The small settings as (flag, value), but for the flags that the command sets itself."""
    small = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | {"--train.epochs": "1", "--train.steps-per-epoch": "1"}
    pairs = [*small.items(), ("--weights", "none")]
    if script.name == "optuna_study.py":
        pairs += [("--trials", "1"), ("--trial-epochs", "1"), ("--finalists", "0")]
    return [pair for pair in pairs if pair[0] not in arguments]


def test_what_is_run_elsewhere_is_still_in_the_docs():
    assert set(ELSEWHERE) <= set(commands())


@pytest.mark.parametrize("block", blocks("python"))
def test_python_of_the_docs_runs(block, documented, monkeypatch):
    monkeypatch.chdir(documented)
    names = {}
    exec(block, names)
    assert names["cells"].to_label_map().max() == len(names["cells"])


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_the_docs_name_exist(path):
    for name in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / name).exists(), name
    for module in re.findall(r"`(?:cellseg/)?([a-z_]+\.py)`", path.read_text()):
        assert list(Path(ROOT).glob(f"*/{module}")), module
