"""Real runs of a network too small to be good, and their reports."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from reports import Read
from scripts import run, run_process
from test_reproduction import options_of

from cellseg.device import machine_of
from cellseg.experiment import opened, prepare, train_tracked
from cellseg.folds import train_folds
from cellseg.report import best_and_worst, gather
from cellseg.reproduction import commands

RUNS = Path("experiments/runs")


@pytest.fixture(scope="module")
def store(tmp_path_factory, folder):
    """The root of a project, with its own copy of the data."""
    root = tmp_path_factory.mktemp("reported")
    shutil.copytree(folder, root / "data")
    return root


@pytest.fixture(scope="module")
def config(run_config):
    """Every box that the network finds is kept, so that there are results."""
    return replace(run_config, predict=replace(run_config.predict, score_threshold=0.0, pq_threshold=0.0))


@pytest.fixture(scope="module")
def trained(store, config):
    """A training with one image held back, long enough to find some cells."""
    longer = replace(config, train=replace(config.train, learning_rate=3e-3, steps_per_epoch=30))
    with contextlib.chdir(store):
        return train_tracked(prepare(longer, store / "data"), experiment="reports", name="final · <tiny>")


@pytest.fixture(scope="module")
def folded(store, config):
    """A training with two folds."""
    in_folds = replace(config, dataset=replace(config.dataset, folds=2))
    with contextlib.chdir(store):
        return train_folds(in_folds, store / "data", opened(in_folds, store / "data"), experiment="reports")


def reported(store, run_id, **options):
    return gather(run_id, store=store, runs=store / RUNS, device="cpu", **options)


def trained_folder(store, run_id):
    (found,) = (store / RUNS).glob(f"*/{run_id}")
    return found


@pytest.mark.parametrize(
    ("count", "best", "worst"),
    [(0, [], []), (1, [0], []), (4, [0, 1, 2, 3], []), (5, [0, 1], [4, 3]), (9, [0, 1], [8, 7])],
)
def test_no_image_is_both_best_and_worst(count, best, worst):
    assert best_and_worst([1 - place / 10 for place in range(count)], most=2) == (best, worst)


def test_the_earlier_of_equals_is_the_better():
    assert best_and_worst([0.5, 0.9, 0.5, 0.5, 0.5], most=2) == ([1, 0], [4, 3])


def test_the_best_network_predicts_what_it_was_validated_on(store, trained):
    report = reported(store, trained.run_id)
    names = [report.unseen.data.records[index].name for index in report.unseen.indices]
    assert len(names) == len(report.unseen.images) == 1
    assert not set(names) & set(report.plan.images)
    assert (report.trained_on, len(report.plan.images)) == (3, 3)
    logged = {f"best/{name}": value for name, value in report.unseen.scores.metrics.items()}
    assert logged["best/AP50"] > 0
    assert logged == pytest.approx({name: report.run.metrics[name] for name in logged}, abs=1e-6)
    assert f"its AP50 on them was {trained.metrics['best/AP50']:.3f}." in report.remark


def test_curves_are_those_of_the_log_the_sum_of_the_losses_first(store, trained):
    report = reported(store, trained.run_id)
    assert [*report.losses] == ["all", "box reg", "classifier", "mask", "objectness", "rpn box reg"]
    assert [*report.losses["all"]] == [*range(1, 61)]
    assert {name: [*history] for name, history in report.figures.items()} == {
        name: [30, 60] for name in ("AP50", "AP50 uncapped", "AP", "AP uncapped")
    }


def test_the_command_gives_the_config_of_the_run(store, trained, monkeypatch):
    report = reported(store, trained.run_id)
    content = json.loads((trained_folder(store, trained.run_id) / "run.json").read_text())
    options = options_of(report.recorded, monkeypatch)
    assert options.config == report.config == report.recorded.config
    assert options.data == Path(content["data"]) == store / "data"


def test_of_folds_every_image_is_unseen_and_the_log_tells_what_they_taught(store, folded):
    report = reported(store, folded.run_id)
    assert len(report.unseen.indices) == report.trained_on == len(report.plan.images) == 4
    assert report.unseen.scores.metrics == folded.out_of_fold.plain.metrics
    assert (report.losses, [*report.figures]) == ({}, ["AP50, mean of the folds"])
    assert report.run.metrics["folds/epochs"] == folded.epochs
    assert "--folds 2" in commands(report.recorded)
    assert "one of 2 networks" in report.remark
    assert (report.of_folds, report.run.tags["hardware"]) == (True, machine_of(torch.device("cpu")))


def test_the_network_of_a_fold_is_told_of_as_any_other_and_trained_again_with_all_folds(store, folded):
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    (experiment,) = (each for each in client.search_experiments() if each.name == "reports")
    (first,) = client.search_runs([experiment.experiment_id], "tags.stage = 'fold 1 of 2'")
    report = reported(store, first.info.run_id)
    assert (report.of_folds, report.trained_on, len(report.unseen.indices)) == (False, 2, 2)
    assert report.unseen.scores.metrics["AJI"] == pytest.approx(report.run.metrics["best/AJI"], abs=1e-6)
    assert "--folds 2" in commands(report.recorded)


def test_a_network_that_has_seen_all_images_has_no_results_and_names_its_folds(store, folded):
    report = reported(store, folded.final.run_id)
    assert report.unseen is None
    assert "none was held back" in report.remark
    assert f"cellseg report {folded.run_id}" in report.remark
    assert report.losses["all"]
    assert "--folds 2" in commands(report.recorded)


def test_folds_that_are_not_done_are_said_to_go_on(store, folded, tmp_path):
    place = trained_folder(store, folded.run_id)
    copy = tmp_path / place.parent.name / place.name
    copy.mkdir(parents=True)
    shutil.copy(place / "run.json", copy)
    with pytest.raises(FileNotFoundError, match=rf"out_of_fold.json: .* --resume {folded.run_id} goes on"):
        gather(folded.run_id, store=store, runs=tmp_path)


def test_data_that_were_moved_are_found_where_they_are_said_to_be(store, trained, tmp_path):
    moved = tmp_path / "moved"
    (store / "data").rename(moved)
    try:
        said = run(store, "cellseg", "report", trained.run_id, code=2)
        assert reported(store, trained.run_id, root=moved).recorded.data == moved
    finally:
        shutil.copytree(moved, store / "data")
    assert (
        said
        == f"error: {store / 'data'}: the data of run {trained.run_id} are not there; say with --data where they are\n"
    )
    shutil.rmtree(sorted((moved / "train").iterdir())[0])
    with pytest.raises(ValueError, match=r"moved: expected the data of run \w+, digest \w+, found \w+; restore"):
        reported(store, trained.run_id, root=moved)


def test_the_command_writes_a_page_that_the_run_keeps_too(store, trained):
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    before = client.get_run(trained.run_id).info
    said = run_process(store, "-m", "cellseg", "report", trained.run_id)
    path = trained_folder(store, trained.run_id) / "report.html"
    assert f"report {path.relative_to(store)}" in said
    html = path.read_text(encoding="utf-8")
    assert Read(html).texts["h1"] == ["final · <tiny>"]
    assert len(Read(html).ids) == 10
    after = client.get_run(trained.run_id).info
    assert (after.status, after.end_time) == (before.status, before.end_time) == ("FINISHED", before.end_time)
    kept = client.download_artifacts(trained.run_id, "report/report.html")
    assert Path(kept).read_text(encoding="utf-8") == html


def test_what_is_wrong_is_told_in_one_line(store, trained, tmp_path):
    def refused(*arguments, root=store):
        return run(root, "cellseg", "report", *arguments, code=2)

    assert "error: run 'beef': no such run under experiments/runs; found " in refused("beef")
    assert "error: nowhere: no such folder" in refused(trained.run_id, "--out", "nowhere/report.html")
    best = trained_folder(store, trained.run_id) / "best.pt"
    best.rename(tmp_path / "best.pt")
    try:
        said = refused(trained.run_id)
    finally:
        (tmp_path / "best.pt").rename(best)
    assert f"error: {best.relative_to(store)}: no such checkpoint" in said
    assert said.count("\n") == 1
    elsewhere = refused(trained.run_id, "--runs", store / RUNS, root=tmp_path)
    assert "mlflow.db: no such store of runs; go to the folder of the training" in elsewhere
    assert not list(tmp_path.iterdir())
