"""Ways of predicting, compared on the networks of the accuracy benchmark."""

import json
from dataclasses import replace

import ingredients
from answers import BASE, CALIBRATED, TOGETHER
from opponents import OPPONENTS
from scripts import ROOT, run, run_process
from test_accuracy import MICRO, TINY, trained

from cellseg.checkpoint import load, save

SCRIPT = ROOT / "benchmarks/inference.py"
ASKED = (BASE, "views 2", CALIBRATED, TOGETHER)


def test_networks_are_asked_once_in_every_way(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(ingredients.INGREDIENTS, "micro", MICRO)
    trained(folder, tmp_path, "demo+micro", steps=1, seeds=(0, 1))
    arguments = ["--recipe", "demo+micro", "--budget", "1 steps", "--data", folder, "--out", tmp_path]
    arguments += ["--device", "cpu", "--settings", *ASKED]
    said = run(tmp_path, SCRIPT, *arguments)
    found = json.loads((tmp_path / f"{folder.name}-demo+micro-1-steps-inference.json").read_text())
    assert [(each["setting"], each["seed"]) for each in found] == [
        *((name, seed) for name in ASKED[:3] for seed in (0, 1)),
        (TOGETHER, -1),
    ]
    again = run(tmp_path, SCRIPT, *arguments)
    path = next(tmp_path.glob("runs/*/*seed 1/last.pt"))
    unfinished = load(path)
    save(replace(unfinished, epoch=0), path)
    assert "trained for 0 of 1 epochs; go on with it" in run(tmp_path, SCRIPT, *arguments, code=2)
    assert "views 2, seed 1: AP50" in said
    assert ", seed" not in again
    assert all(f"| {name} |" in again for name in ASKED)


def test_networks_of_another_split_are_asked_for_the_images_that_it_held_out(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(ingredients.INGREDIENTS, "micro", MICRO)
    trained(folder, tmp_path, "demo+micro", "--split-seed", 3, steps=1)
    arguments = ["--recipe", "demo+micro", "--budget", "1 steps", "--data", folder, "--out", tmp_path]
    arguments += ["--device", "cpu", "--split-seed", 3, "--seeds", 0, "--settings", BASE]
    run(tmp_path, SCRIPT, *arguments)
    (asked,) = json.loads((tmp_path / f"{folder.name}-demo+micro-1-steps-split3-inference.json").read_text())
    (record,) = json.loads((tmp_path / f"{folder.name}.json").read_text())["records"]
    assert record["split"] == 3
    assert asked["metrics"] == record["metrics"]


def test_networks_that_were_not_trained_are_named(folder, tmp_path):
    said = run_process(tmp_path, SCRIPT, "--recipe", "demo", "--data", folder, "--out", tmp_path, code=2)
    assert "demo 15 min seed 0/last.pt: no such network; train it with benchmarks/accuracy.py" in said
    assert "Traceback" not in said


def test_an_opponent_is_asked_in_the_ways_that_torchvision_has(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(OPPONENTS, "torchvision-slim", replace(OPPONENTS["torchvision-slim"], crop=64, **TINY))
    trained(folder, tmp_path, "torchvision-slim", steps=1)
    arguments = ["--recipe", "torchvision-slim", "--budget", "1 steps", "--data", folder, "--out", tmp_path]
    arguments += ["--device", "cpu", "--seeds", 0]
    run(tmp_path, SCRIPT, *arguments)
    answers = json.loads((tmp_path / f"{folder.name}-torchvision-slim-1-steps-inference.json").read_text())
    (record,) = json.loads((tmp_path / f"{folder.name}.json").read_text())["records"]
    assert [each["setting"] for each in answers] == [
        *(BASE, "score threshold .01", "score threshold .05", "score threshold .1"),
        *("box NMS .4", "box NMS .4, score threshold .01", "box NMS .5", "box NMS .6"),
        *("proposals 1000", "detections 500", "detections 2000", "detections 2000, box NMS .4, score threshold .01"),
        "proposals 6000, detections 2000, box NMS .4, score threshold .01",
    ]
    assert answers[0]["metrics"] == record["metrics"]
    assert "views 2: recipe torchvision-slim has no such thing" in run(
        tmp_path, SCRIPT, *arguments, "--settings", "views 2", code=2
    )
    begun = next(tmp_path.glob("runs/*/*/training.json"))
    begun.write_text(begun.read_text().replace('"steps": 1', '"steps": 2'))
    assert "trained for 1 of 2 steps; go on with it" in run(tmp_path, SCRIPT, *arguments, code=2)
