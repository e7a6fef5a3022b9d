"""The accuracy benchmark's script, with networks and steps so few that nothing is learnt."""

import json
from dataclasses import replace

import ingredients
import pytest
from opponents import OPPONENTS
from scripts import ROOT, run, run_process

from cellseg import budget

SCRIPT = ROOT / "benchmarks/accuracy.py"
TINY = {"roi_batch": 8, "proposals": 20, "proposals_asked": 20, "detections": 5}
MICRO = {
    "augment.crop": 64,
    "model.fpn_channels": 16,
    "model.box_head": 16,
    "model.mask_channels": [8],
    "predict.detections": 5,
    "predict.proposals": 20,
    "predict.zoom": 1.0,
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """All rows on views of 64 pixels."""
    monkeypatch.setitem(OPPONENTS, "reference", replace(OPPONENTS["reference"], short_side=64, batch=2, **TINY))
    for name in ("torchvision", "torchvision-slim"):
        monkeypatch.setitem(OPPONENTS, name, replace(OPPONENTS[name], crop=64, **TINY))
    monkeypatch.setitem(ingredients.INGREDIENTS, "micro", MICRO)
    monkeypatch.setattr(budget, "TIMED", (1, 2))


def trained(folder, out, *recipes, steps=2, seeds=(0,)):
    """What the script said, and what is on record after it."""
    arguments = ["--data", folder, "--steps", steps, "--seeds", *seeds, "--out", out, "--device", "cpu"]
    said = run(out, SCRIPT, "--recipes", *recipes, *arguments)
    return said, json.loads((out / f"{folder.name}.json").read_text())["records"]


def test_every_kind_of_row_trains_and_is_scored_on_the_same_images(folder, tmp_path):
    said, found = trained(folder, tmp_path, "reference", "torchvision", "torchvision-slim", "demo+micro")
    assert [each["recipe"] for each in found] == ["reference", "torchvision", "torchvision-slim", "demo+micro"]
    assert {(each["steps"], each["budget"]) for each in found} == {(2, "2 steps")}
    assert len({tuple(each["held_out"]) for each in found}) == 1
    assert all(each["seconds"] > 0 and 0 <= each["metrics"]["AP50"] <= 1 for each in found)
    assert found[0]["parameters"] > found[1]["parameters"] > found[2]["parameters"] > found[3]["parameters"]
    assert "| torchvision-slim |" in said


def test_a_finished_training_is_kept_also_where_its_recipe_has_changed(folder, tmp_path, monkeypatch):
    _, (first,) = trained(folder, tmp_path, "torchvision-slim")
    said, (again,) = trained(folder, tmp_path, "torchvision-slim")
    assert "on record" in said
    assert again == first
    monkeypatch.setitem(OPPONENTS, "torchvision-slim", replace(OPPONENTS["torchvision-slim"], learning_rate=1e-5))
    said, (kept, changed) = trained(folder, tmp_path, "torchvision-slim")
    assert "step 2 of 2" in said
    assert kept == first
    assert changed["config"] != first["config"]
    assert f"| torchvision-slim (config {first['config'][:8]}) | 0 |" in said


def test_seeds_and_budgets_are_recorded_beside_each_other(folder, tmp_path):
    trained(folder, tmp_path, "torchvision-slim", seeds=(0, 1))
    said, found = trained(folder, tmp_path, "torchvision-slim", steps=1)
    assert [(each["seed"], each["steps"]) for each in found] == [(0, 2), (1, 2), (0, 1)]
    assert said.index("2 steps of training") < said.index("1 steps of training")


def test_a_rate_is_measured_once_and_fixes_the_steps(folder, tmp_path):
    out = tmp_path / "out"
    arguments = ("--recipes", "torchvision-slim", "--data", folder, "--seeds", 0, "--out", out, "--device", "cpu")
    run(tmp_path, SCRIPT, *arguments, "--minutes", "0.0001")
    file = out / f"{folder.name}.json"
    book = json.loads(file.read_text())
    (rate,) = book["rates"]
    assert rate["step_s"] > 0
    rate["step_s"] = 0.5
    file.write_text(json.dumps(book | {"records": []}))
    assert "3 steps in 0.025 min" in run(tmp_path, SCRIPT, *arguments, "--minutes", "0.025")  # 1.5 s
    (record,) = json.loads(file.read_text())["records"]
    assert record["steps"] == 3


def test_the_report_alone_trains_nothing(tmp_path):
    assert "no finished training" in run(tmp_path, SCRIPT, "--only-report", "--recipes", "demo", "--out", tmp_path)


def test_an_unknown_recipe_is_one_line(folder, tmp_path):
    said = run(tmp_path, SCRIPT, "--recipes", "demo+nothing", "--data", folder, "--out", tmp_path, code=2)
    assert "recipe demo+nothing: expected one of" in said


def test_help_answers_without_loading_torch(tmp_path):
    code = f"import sys, runpy; sys.argv = ['a', '--help']; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
    code += (
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\nexcept SystemExit: print('torch' in sys.modules)"
    )
    said = run_process(tmp_path, "-c", code)
    assert "torchvision-slim" in said
    assert said.strip().endswith("False")
