"""`cellseg predict`, alone and shared out by torchrun."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
import torch
from scripts import run
from untrained import save_untrained

SETTINGS = ("--device", "cpu", "--formats", "coco", "labels")


@pytest.fixture(scope="module")
def place(tmp_path_factory, run_config):
    """A folder with an untrained network, which finds cells in noise, and three images of it."""
    folder = tmp_path_factory.mktemp("predict")
    save_untrained(folder / "best.pt", run_config)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for name in "abc":
        noise = rng.integers(0, 256, (90, 100, 3), dtype=np.uint8)
        tifffile.imwrite(folder / f"images/{name}.tif", noise, photometric="rgb", rowsperstrip=16, compression="zlib")
    return folder


def found(folder, names="abc"):
    """The COCO dicts of the images, by name."""
    return {name: json.loads((folder / f"{name}.coco.json").read_text()) for name in names}


def started(folder, *arguments, processes=1):
    """`cellseg predict` as a process, or as several of torchrun."""
    together = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    command = [sys.executable, *(together if processes > 1 else ()), "-m", "cellseg.cli", "predict", "best.pt"]
    return subprocess.Popen(
        [*command, *map(str, arguments), *SETTINGS],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_folder_of_images_becomes_a_folder_of_predictions(place, tmp_path):
    said = run(place, "cellseg", "predict", "best.pt", "images", "--out", tmp_path / "out", *SETTINGS)
    cells = found(tmp_path / "out")
    assert [each["images"][0]["id"] for each in cells.values()] == [1, 2, 3]
    total = 0
    for name, each in cells.items():
        label_map = tifffile.imread(tmp_path / f"out/{name}.labels.tif")
        assert label_map.max() == len(each["annotations"]) > 0
        total += len(each["annotations"])
    lines = said.splitlines()
    assert sum(int(line.split()[1]) for line in lines if line.endswith("cells")) == total
    assert lines[-1].endswith("out: 3 of 3 images, coco, labels")


def test_names_given_by_hand_are_those_of_the_classes(place, tmp_path):
    names = ("epithelial", "lymphocyte", "neutrophil", "macrophage")
    said = run(
        place, "cellseg", "predict", "best.pt", "images/a.tif", "--out", tmp_path, *SETTINGS, "--classes", *names
    )
    assert all(name in said for name in names)
    assert [each["name"] for each in found(tmp_path, "a")["a"]["categories"]] == list(names)


def test_two_processes_write_what_one_does(place, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of more threads differ in the last digit
    run(place, "cellseg", "predict", "best.pt", "images", "--out", tmp_path / "one", *SETTINGS)
    torch.set_num_threads(threads)
    with started(place, "images", "--out", tmp_path / "two", processes=2) as process:
        said, problems = process.communicate(timeout=240)
    assert process.returncode == 0, problems
    assert found(tmp_path / "two") == found(tmp_path / "one")
    assert said.count("3 of 3 images") == 1


def test_a_bad_file_is_named_once_and_the_code_is_1(place, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_text("hello")
    said = run(
        place, "cellseg", "predict", "best.pt", bad, "images/a.tif", "--out", tmp_path / "out", *SETTINGS, code=1
    )
    assert said.count(f"error: {bad}: expected a tif, png or jpg") == 1
    assert "1 of 2 images" in said
    assert set(found(tmp_path / "out", "a")) == {"a"}
    assert not list((tmp_path / "out").glob("bad*"))


def test_a_killed_batch_goes_on_and_writes_what_one_without_a_kill_does(place, tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "many").mkdir()
    for number in range(12):
        noise = rng.integers(0, 256, (150, 150, 3), dtype=np.uint8)
        tifffile.imwrite(tmp_path / f"many/{number:02}.tif", noise, photometric="rgb")
    out = tmp_path / "out"
    with started(place, tmp_path / "many", "--out", out) as process:
        while process.poll() is None and not (out / "00.coco.json").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.coco.json")}
    assert 0 < len(done) < 12
    run(place, "cellseg", "predict", "best.pt", tmp_path / "many", "--out", out, *SETTINGS)
    assert len(list(out.glob("*.coco.json"))) == 12
    again = [name for name, written in done.items() if (out / name).stat().st_mtime_ns != written]
    assert len(again) <= 1  # the one that was not noted as finished when the kill came
    for path in out.glob("*.labels.tif"):
        assert tifffile.imread(path).shape == (150, 150)


def test_a_format_more_is_written_beside_the_others(place, tmp_path):
    call = ("predict", "best.pt", "images/a.tif", "--out", tmp_path, "--device", "cpu", "--formats")
    run(place, "cellseg", *call, "coco")
    before = found(tmp_path, "a")
    run(place, "cellseg", *call, "coco", "csv")
    assert found(tmp_path, "a") == before
    assert len((tmp_path / "a.csv.csv").read_text().splitlines()) == 1 + len(before["a"]["annotations"])


def test_another_checkpoint_is_refused_until_the_old_is_to_be_forgotten(place, tmp_path):
    run(place, "cellseg", "predict", "best.pt", "images/a.tif", "--out", tmp_path, *SETTINGS)
    other = (*SETTINGS, "--channel-order", "bgr")
    said = run(place, "cellseg", "predict", "best.pt", "images/a.tif", "--out", tmp_path, *other, code=2)
    assert said.startswith("error: ")
    assert "holds predictions with channel order rgb, this call has bgr; choose another --out" in said
    run(place, "cellseg", "predict", "best.pt", "images/a.tif", "--out", tmp_path, *other, "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("best.pt",), "expected files or folders after the checkpoint, got none"),
        (("images/a.tif", "images/b.tif"), "images/a.tif: expected tensors and plain values"),
        (("nothing.pt", "images"), "nothing.pt: no such checkpoint; expected a best.pt"),
        (("images", "images/a.tif"), "images: a folder, where a checkpoint was expected; name one in it, such as"),
        (("best.pt", "nothing.tif"), "nothing.tif: no such file or folder"),
        (("best.pt", "images", "--classes", "x"), "--classes: expected 4 names"),
    ],
)
def test_a_wrong_call_is_one_line(place, tmp_path, arguments, reason):
    said = run(place, "cellseg", "predict", *arguments, "--out", tmp_path / "out", "--device", "cpu", code=2)
    assert said.startswith("error: ")
    assert reason in said
    assert not (tmp_path / "out").exists()
