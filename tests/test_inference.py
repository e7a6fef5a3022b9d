"""Ways of predicting, compared on the networks of the accuracy benchmark."""

import json
from dataclasses import replace

import inference
import ingredients
import pytest
from accuracy_table import METRICS
from inference import BASE, CALIBRATED, TOGETHER, Answer, report, signed
from test_accuracy import MICRO, trained
from test_scripts import ROOT, run, run_process

from cellseg.checkpoint import load, save

SCRIPT = ROOT / "benchmarks/inference.py"
ASKED = (BASE, "views 2", CALIBRATED, TOGETHER)


def answer(setting, seed, ap50, uncapped=0.5, checkpoints=()):
    """One of checkpoints whose digests are given; of none, as in records that do not tell."""
    metrics = dict.fromkeys(METRICS, 0.25) | {"AP50": ap50, "AP50_uncapped": uncapped}
    return Answer(setting, seed, "".join(checkpoints), metrics, tuple(checkpoints))


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


def test_gains_are_of_the_same_network():
    answers = [answer(BASE, 0, 0.2), answer(BASE, 1, 0.4), answer("views 2", 0, 0.21), answer("views 2", 1, 0.43)]
    lines = report([*answers, answer(TOGETHER, -1, 0.35)], [BASE, "views 2", TOGETHER]).splitlines()
    assert lines[2].startswith(f"| {BASE} | .300 | .250 |")
    assert "| +0.020 (+0.010 to +0.030) |" in lines[3]
    assert "| +0.050 (+0.050 to +0.050) |" in lines[4]  # over the mean of both


def test_a_network_that_was_trained_anew_is_not_compared_with_the_old_one():
    old = [answer(BASE, 0, 0.2), answer(BASE, 1, 0.4), answer("views 2", 0, 0.21), answer("views 4", 1, 0.43)]
    anew = [answer(BASE, 0, 0.3, checkpoints="x"), *old[1:], answer(TOGETHER, -1, 0.9, checkpoints="xz")]
    said = report(anew, [BASE, "views 2", "views 4", TOGETHER])
    assert "| views 2 |" not in said
    assert "| views 4 | .430 |" in said
    assert said.endswith(f'were not asked "{BASE}": views 2 (seed 0), {TOGETHER} (seed -1)')
    later = [answer(BASE, 0, 0.2, checkpoints="x"), answer("views 2", 0, 0.21, checkpoints="y")]
    assert "| views 2 |" not in report(later, [BASE, "views 2"])
    assert report(later[1:], ["views 2"]).startswith("left out")


def test_an_answer_is_compared_with_an_older_record_of_its_own_checkpoint():
    bases = [replace(answer(BASE, seed, 0.2 * seed), network=f"{seed}") for seed in (1, 2, 3)]
    answers = [*bases, answer("views 2", 1, 0.21, checkpoints="1"), answer(TOGETHER, -1, 0.35, checkpoints="12")]
    said = report(answers, [BASE, "views 2", TOGETHER])
    assert "| +0.010 (+0.010 to +0.010) |" in said
    assert "| +0.050 (+0.050 to +0.050) |" in said  # over the mean of the two that predict together


def test_answers_on_record_without_checkpoints_are_all_reported():
    for file in inference.HERE.glob("*-inference.json"):
        answers = inference.read(file)
        said = report(answers, list(inference.SETTINGS))
        assert "left out" not in said
        assert all(f"| {each.setting} |" in said for each in answers)


def test_seeds_that_disagree_are_noise():
    assert signed([-0.01, 0.03]) == "+0.010 (-0.010 to +0.030), noise"
    assert signed([0.0, 0.0]) == "+0.000 (+0.000 to +0.000), noise"
    assert signed([-0.02, -0.01]) == "-0.015 (-0.020 to -0.010)"


@pytest.mark.parametrize("setting", inference.SETTINGS)
def test_every_setting_is_a_config(setting):
    from cellseg.config import RunConfig
    from cellseg.config_fields import replaced

    fields = inference.SETTINGS[setting]
    predict = replaced(RunConfig(), {f"predict.{name}": value for name, value in fields.items()}).predict
    assert {name: getattr(predict, name) for name in fields} == fields
