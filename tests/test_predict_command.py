"""`cellseg predict`, alone and shared out by torchrun; test_scripts.py runs the other commands."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from cellseg import slides
from cellseg.checkpoint import Checkpoint, save
from cellseg.commands.predict import Predict
from cellseg.config import PredictConfig
from cellseg.fingerprint import Plan
from cellseg.model import build_model, state_of
from cellseg.slides import Slide


@pytest.fixture(scope="module")
def place(tmp_path_factory, run_config):
    """A folder with an untrained network, which finds cells in noise, and three images of it."""
    folder = tmp_path_factory.mktemp("predict")
    torch.manual_seed(0)
    predicted = PredictConfig(zoom=1.0, tile=64, overlap=32, proposals=20, score_threshold=0.0, detections=10)
    plan = Plan("d1gest", ("a", "b", "c", "d"), "rgb", 1.0, 64, (8.0, 16.0), (1.0,), 10, 10.0, 8)
    state = state_of(build_model(run_config.model))
    config = replace(run_config, predict=predicted)
    save(Checkpoint(state, config, plan, "abc123", 1, {}, {}), folder / "best.pt")
    rng = np.random.default_rng(0)
    for name in "abc":
        noise = rng.integers(0, 256, (90, 100, 3), dtype=np.uint8)
        tifffile.imwrite(folder / f"{name}.tif", noise, photometric="rgb", rowsperstrip=16, compression="zlib")
    return folder


def predicted(folder, names="abc", **options):
    """The results that `cellseg predict` writes."""
    images = tuple(folder / f"{name}.tif" for name in names)
    out = folder / "alone.json"
    Predict(folder / "best.pt", images, out=out, point="ap", device="cpu", **options).run()
    return json.loads(out.read_text())


def two_processes(folder, *images):
    """What torchrun with two processes said and left with; they write two.json."""
    command = [sys.executable, *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")]
    command += ["-m", "cellseg.cli", "predict", "best.pt", *images, "--point", "ap", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--out", "two.json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_image_n_has_id_n_and_each_its_own_cells(place):
    results = predicted(place)
    assert sorted({result["image_id"] for result in results}) == [1, 2, 3]
    assert [result["image_id"] for result in results] == sorted(result["image_id"] for result in results)
    only_b = [{**result, "image_id": 2} for result in predicted(place, "b")]
    assert only_b == [result for result in results if result["image_id"] == 2]


def test_a_file_that_is_streamed_gives_the_results_of_one_that_is_read(place, monkeypatch):
    read = predicted(place)
    monkeypatch.setattr(slides, "LARGE", 0)
    assert isinstance(slides.open_image(place / "a.tif"), Slide)
    assert predicted(place) == read


def test_two_processes_write_what_one_does(place):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of more threads differ in the last digit
    alone = predicted(place)
    torch.set_num_threads(threads)
    done = two_processes(place, "a.tif", "b.tif", "c.tif")
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "two.json").read_text()) == alone
    assert done.stdout.count("two.json") == 1
    (place / "two.json").unlink()


def test_a_bad_file_is_named_once_and_nothing_is_written(place):
    (place / "bad.tif").write_text("hello")
    done = two_processes(place, "a.tif", "bad.tif")
    assert done.returncode != 0
    assert done.stderr.count("error: bad.tif: expected a tif") == 1
    assert "exitcode:2" in done.stderr.replace(" ", "")
    assert not (place / "two.json").exists()
