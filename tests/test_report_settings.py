from dataclasses import replace
from datetime import timedelta

import pytest
from reports import Read, found_again, report_of, unseen_of
from test_report_results import rows

from cellseg import report_settings as settings
from cellseg.config_fields import flat, replaced


@pytest.fixture(scope="module")
def report(data, run_config):
    return report_of(data, run_config)


def facts(report):
    texts = Read(settings.facts(report)).texts
    return dict(zip(texts["dt"], texts["dd"], strict=True))


def test_the_facts_tell_a_training_from_others(report, data):
    assert facts(report) == {
        "recipe": "demo, resnet18, seed 0",
        "data": f"{data.root}: 3 images trained on, 0 held back; digest {data.digest}",
        "trained": "2026-11-25 21:17 UTC, 1 h 2 min 5 s, finished",
        "code": "commit c0ffee",
        "hardware": "Abacus, 2 threads",
        "MLflow run": "beef",
    }


def test_what_is_known_of_unseen_images_is_among_the_facts(data, run_config):
    known = facts(report_of(data, run_config, unseen_of(data, found_again(data.truth()))))
    assert known["AP50"] == "1.000"
    assert "3 images trained on, 4 held back;" in known["data"]


def test_what_is_not_known_is_said(report):
    unknown = replace(
        report, run=replace(report.run, tags={}, ended=None), recorded=replace(report.recorded, commit="unknown")
    )
    assert (facts(unknown)["code"], facts(unknown)["hardware"]) == ("not recorded", "not recorded")
    assert "not ended" in facts(unknown)["trained"]
    assert "git checkout" not in settings.command(unknown)
    short = replace(report, run=replace(report.run, ended=report.run.started + timedelta(seconds=0.2)))
    assert "UTC, 0 s," in facts(short)["trained"]


def test_several_processes_are_told(report):
    several = replace(report, recorded=replace(report.recorded, processes=3))
    assert facts(several)["hardware"] == "3 processes, each on Abacus, 2 threads"


def test_departures_from_the_recipe_come_first_and_all_fields_are_folded(report):
    page = settings.config(report)
    departures, everything = page.split("<details>")
    changed = {name: (here, recipe) for name, here, recipe in rows(departures)[1:]}
    assert changed["train.epochs"] == ("2", "4")
    assert changed["augment.crop"] == ("64", "192")
    assert changed["predict.zoom"] == ("1", "from the Plan")
    assert changed["model.anchor_sizes"] == ("8, 16", "from the Plan")
    assert "seed" not in changed
    assert {name for name, _ in rows(everything)[1:]} == set(flat(report.config))
    assert f"All {len(flat(report.config))} fields" in everything


def test_a_value_that_a_recipe_has_and_a_config_has_not_is_none(report):
    changed = replace(
        report, config=replaced(report.config, {"predict.calibration": None, "model.aspect_ratios": None})
    )
    whole = dict(rows(settings.config(changed).split("<details>")[1])[1:])
    assert whole["model.aspect_ratios"] == whole["predict.calibration"] == "none"


def test_the_plan_names_its_cells_by_class_and_folds_the_images(report, data):
    page, images = settings.plan(report.plan).split("<details>")
    fields = dict(rows(page)[1:])
    counts = data.cell_counts.sum(axis=0).tolist()
    assert fields["class_cells"] == ", ".join(f"class{label} {count}" for label, count in enumerate(counts, start=1))
    assert fields["digest"] == data.digest
    assert not {"images", "image_weights"} & set(fields)
    weights = [float(weight) for _, weight in rows(images)[1:]]
    assert len(weights) == 4
    assert weights == sorted(weights, reverse=True)


def test_a_commit_with_changed_files_is_warned_of(report):
    changed = replace(report, run=replace(report.run, tags={"git.dirty": "true"}))
    assert "the commit alone does not give the same code" in settings.command(changed)
    assert facts(changed)["code"] == "commit c0ffee with changed files"
    assert "the commit alone" not in settings.command(report)


def test_the_command_is_whole(report):
    (command,) = Read(settings.command(report)).texts["code"]
    assert command.startswith("git checkout c0ffee\npython experiments/final_train.py --recipe demo")
    assert "    --train.epochs 2 \\\n" in command


def test_what_folds_taught_is_told_of_their_parent_alone(report):
    assert settings.lessons(report) == ""
    taught = replace(report, run=replace(report.run, metrics={"folds/epochs": 7.0, "out_of_fold/PQ": 0.25}))
    assert rows(settings.lessons(taught))[1:] == [["epochs of the final network", "7"], ["PQ as they are", "0.25"]]
    folds = replace(taught, of_folds=True, recorded=replace(taught.recorded, in_folds=True))
    assert "3 images trained on, each held back once;" in facts(folds)["data"]
    assert "the network of each fold and the final one" in settings.command(folds)
