"""Every script as a user runs it: real files, a real MLflow store, a network too small to be good."""

import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from mlflow import MlflowClient
from scripts import ROOT, SHARED, SMALL, run, run_process

from cellseg import tracking
from cellseg.budget import KEPT
from cellseg.checkpoint import load, load_model, save
from cellseg.dataset import test_images as images_to_predict
from cellseg.export import lint
from cellseg.images import read_image
from cellseg.json_files import MEMBER, read_image_ids, read_results
from cellseg.model import build_model, state_of
from cellseg.predict import predict
from cellseg.sample import write

PATIENCE = 240
"""seconds after which a test gives up waiting"""


STUDY = [
    *(*SMALL, "--trials", "4", "--trial-epochs", "1", "--finalists", "1", "--final-seeds", "2", "--workers", "1"),
    *("--yardsticks", "gated"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A root with data/ where study, final training and submission have run, and what each printed."""
    folder = tmp_path_factory.mktemp("project")
    write(folder / "data", train=4, test=2)
    printed = {
        "study": run(folder, ROOT / "search/optuna_study.py", *STUDY),
        "train": run(folder, ROOT / "experiments/final_train.py", *SMALL),
        "submit": run(folder, ROOT / "experiments/submit.py"),
    }
    return folder, printed


@pytest.fixture(scope="module")
def store(project):
    return MlflowClient(f"sqlite:///{project[0] / 'mlflow.db'}")


def runs_of(store, experiment):
    return store.search_runs([store.get_experiment_by_name(experiment).experiment_id])


def test_the_study_tries_the_known_anchor_sets_first_and_leaves_a_winner(project):
    folder, printed = project
    (path,) = (folder / "search/results").glob("*/best.json")
    winner = json.loads(path.read_text())
    assert winner["recipe"] == "demo"
    assert set(winner["overrides"]) == {
        "model.anchor_sizes",
        "model.aspect_ratios",
        "train.learning_rate",
        "train.warmup_fraction",
    }
    assert winner["seeds"] == 2
    assert winner["low"] <= winner["value"] <= winner["high"]
    assert "4 trials" in printed["study"]
    assert "Recall check: refused" in printed["study"]


def test_trials_are_children_of_the_study_and_hopeless_anchors_are_never_trained(project, store):
    runs = runs_of(store, "cellseg-search")
    (parent,) = (each for each in runs if each.data.tags.get("kind") == "study")
    children = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    trials = {int(each.data.tags["trial"]): each for each in children if each.data.tags["stage"] == "trial"}
    assert sorted(trials) == [0, 1, 2, 3]
    refused = trials[2]  # the reference's set misses the sample's nuclei
    assert (refused.info.status, "train/loss" in refused.data.metrics) == ("KILLED", False)
    assert "best possible recall" in refused.data.tags["pruned"]
    assert (trials[0].info.status, "train/loss" in trials[0].data.metrics) == ("FINISHED", True)
    finals = [each.info.run_name for each in children if each.data.tags["stage"] == "final"]
    assert sorted(name.split(" · ")[0] for name in finals) == ["final-000 seed 0", "final-000 seed 1"]
    assert parent.data.tags["mlflow.note.content"].startswith("# Study demo-")
    kept = {Path(each.path).name for each in store.list_artifacts(parent.info.run_id, "study")}
    assert {"history.png", "trials.csv", "finals.csv", "study.md", "best.json"} <= kept
    assert parent.data.metrics["study/refused_trials"] >= 1


def test_the_final_run_holds_losses_figures_pictures_and_the_checkpoint(project, store):
    (final,) = runs_of(store, "cellseg-final")
    assert final.info.status == "FINISHED"
    losses = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    assert {f"train/{name}" for name in losses} <= set(final.data.metrics)
    assert {"val/AP50", "val/AP_uncapped", "best/AP50", "train/learning_rate", "train/grad_norm"} <= set(
        final.data.metrics
    )
    assert [each.step for each in store.get_metric_history(final.info.run_id, "train/loss")] == [1, 2, 3, 4]
    assert [each.step for each in store.get_metric_history(final.info.run_id, "val/AP50")] == [2, 4]
    assert final.data.tags["study"].startswith("demo-")
    assert {"digest", "git.commit", "git.dirty"} <= set(final.data.tags)
    found = {each.path for each in store.list_artifacts(final.info.run_id)}
    assert {"config.json", "plan.json", "checkpoints", "curves", "images"} <= found
    pictures = [each.path for each in store.list_artifacts(final.info.run_id, "images") if each.path.endswith(".png")]
    assert sorted(int(re.search(r"step[+%](\d+)", name)[1]) for name in pictures) == [0, 2, 4]  # 0 is the truth
    assert not any(name.startswith("best/class") for name in final.data.metrics)
    assert final.data.tags["mlflow.note.content"].startswith("Recipe `demo` with resnet18, seed 0: trained on 3 images")
    assert [each.dataset.name for each in final.inputs.dataset_inputs] == ["data"]
    assert re.fullmatch(r"final · demo resnet18 seed 0 · a[\d.]+×[\d.]+ · lr [\d.]+e-\d", final.info.run_name)


def test_the_final_network_is_registered_and_those_of_the_search_are_not(project, store):
    folder, printed = project
    (final,) = runs_of(store, "cellseg-final")
    (version,) = store.search_model_versions("name = 'cellseg'")
    assert version.run_id == final.info.run_id
    assert "registered models:/cellseg/1, now models:/cellseg@best" in printed["train"]
    with tracking.model_file("models:/cellseg@best", folder) as path:
        checkpoint = load(path)
    assert checkpoint.config.recipe == "demo"
    assert f"{checkpoint.metrics['val/AP50']:.4f}" == version.tags["AP50"]


def test_the_winner_is_trained_unless_a_field_is_set_by_hand(project):
    folder, printed = project
    assert re.search(r"trial \d with AP50 \d\.\d+ \(.* 2 seeds\)", printed["train"])
    winner = json.loads(next((folder / "search/results").glob("*/best.json")).read_text())
    (path,) = (folder / "experiments/runs").glob("*/*/run.json")
    config = json.loads(path.read_text())["config"]
    assert config["model"]["anchor_sizes"] == winner["overrides"]["model.anchor_sizes"]
    assert config["train"]["epochs"] == 2  # by hand


def test_the_submission_passes_its_own_lint(project):
    folder, printed = project
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        assert archive.namelist() == [MEMBER]
    images = read_image_ids(folder / "data/test_image_name_to_ids.json")
    assert lint(read_results(folder / "submission.zip"), images) == []
    assert "submission.zip" in printed["submit"]
    assert "no problem" in run(folder, "cellseg", "lint", "submission.zip", "data/test_image_name_to_ids.json")


def test_several_checkpoints_are_submitted_together(project):
    folder, _ = project
    one, two = next((folder / "experiments/runs").glob("*/*/best.pt")), folder / "other.pt"
    found = load(one)
    torch.manual_seed(1)
    config = replace(found.config, model=replace(found.config.model, aspect_ratios=(0.7, 1.4), mask_size=56))
    save(replace(found, config=config, model=state_of(build_model(config.model))), two)
    results = []
    for number, paths in enumerate([(one, two), (one,), (two,)]):
        said = run(folder, ROOT / "experiments/submit.py", "--checkpoint", *paths, "--out", f"{number}.zip")
        assert (f"with {two}, under the predict config of {one}" in said) == (number == 0)
        results.append(read_results(folder / f"{number}.zip"))
    images = read_image_ids(folder / "data/test_image_name_to_ids.json")
    assert lint(results[0], images) == []
    assert results[0] not in results[1:]


def test_a_finished_network_is_submitted_in_other_ways_than_it_was_validated_in(project):
    folder, _ = project
    path = next((folder / "experiments/runs").glob("*/*/best.pt"))

    def submitted(*options):
        run(folder, ROOT / "experiments/submit.py", "--checkpoint", path, "--out", "views.zip", *options)
        return read_results(folder / "views.zip")

    plain = submitted()
    least = statistics.median(each["score"] for each in plain)
    other = submitted("--views", 2, "--zooms", 1, 0.8, "--score-threshold", least, "--box-nms", 0.2)
    network, checkpoint = load_model(path)
    config = replace(checkpoint.config.predict, views=2, zooms=(1.0, 0.8), score_threshold=least, box_nms=0.2)
    first = images_to_predict(folder / "data")[0]
    image = read_image(first.path, checkpoint.plan.channel_order)
    expected = [each["score"] for each in predict(network, [(first.image_id, image)], config)]
    own = [each["score"] for each in other if each["image_id"] == first.image_id]
    assert own
    assert own == pytest.approx(expected, abs=1e-6)
    assert plain != other


def test_a_training_starts_from_the_network_of_another(project, tmp_path, caplog):
    folder, _ = project
    path = next((folder / "experiments/runs").glob("*/*/best.pt"))
    with caplog.at_level("INFO", "cellseg"):
        script, options = ROOT / "experiments/final_train.py", ("--data", folder / "data", "--weights", path)
        said = run(tmp_path, script, *SMALL, *options, "--no-register")
    assert "registered" not in said
    assert MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_registered_models() == []
    assert re.search(rf"weights: {path}: (\d+) of \1 tensors loaded", caplog.text)


def test_a_network_is_fine_tuned_to_other_classes_without_its_settings_being_named(project, tmp_path, caplog):
    folder, _ = project
    path = next((folder / "experiments/runs").glob("*/*/best.pt"))
    few = ["--recipe", "demo", "--train.epochs", "1", "--train.steps-per-epoch", "1", "--predict.detections", "60"]
    names = ["epithelial", "lymphocyte", "neutrophil", "macrophage"]
    with caplog.at_level("INFO", "cellseg"):
        script, data = ROOT / "experiments/final_train.py", ["--data", folder / "data"]
        run(tmp_path, script, *few, *data, "--fine-tune", path, "--classes", *names)
        (first,) = tmp_path.glob("experiments/runs/*/*/best.pt")
        said = run(tmp_path, script, *few, *data, "--fine-tune", first, "--classes", "other", *names, "--all-data")
    whole = r"(\d+) of \1 tensors loaded; initialised at random: none"
    assert re.search(rf"{whole}; classes taken over: none; begun anew: {', '.join(names)}\n", caplog.text)
    assert re.search(rf"{whole}; classes taken over: {', '.join(names)}; begun anew: other\n", caplog.text)
    source, tuned = load(path), load(first)
    for name in ("fpn_channels", "mask_channels", "anchor_sizes", "aspect_ratios", "num_cell_classes"):
        assert getattr(tuned.config.model, name) == getattr(source.config.model, name)
    assert tuned.plan.class_names == tuple(names)
    assert tuned.plan.digest == source.plan.digest
    (tracked,) = runs_of(MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}"), "cellseg-final")[1:]
    assert "val/epithelial/AP50" in tracked.data.metrics
    assert "study" not in tracked.data.tags
    second = re.search(r"checkpoint (.+best\.pt)", said)[1]
    submitted = run(tmp_path, ROOT / "experiments/submit.py", *data, "--checkpoint", second)
    assert [line.split()[0] for line in submitted.splitlines() if line.endswith(" cells")] == ["other", *names]


def test_hours_plan_the_epochs_from_what_was_measured(project, tmp_path):
    small = dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    del small["--train.epochs"]
    few = [word for pair in small.items() for word in pair]
    script, data = ROOT / "experiments/final_train.py", ["--data", project[0] / "data"]
    said = run(tmp_path, script, *few, *data, "--hours", "0.01")
    told = re.search(r"0\.01 h: (\S+) s a step, (\d+) epochs of 2 steps, \2 validations of (\S+) s\n", said)
    epochs = int(told[2])
    assert 1 <= epochs <= 36 * (1 - KEPT) / (2 * float(told[1]) + float(told[3])) * 1.01
    (tracked,) = runs_of(MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}"), "cellseg-final")
    assert (tracked.data.tags["hours"], tracked.data.params["train.epochs"]) == ("0.01", told[2])
    (last,) = tmp_path.glob("experiments/runs/*/*/last.pt")
    assert load(last).epoch == epochs
    least = run(tmp_path, script, *few, *data, "--hours", "0.0001", "--folds", "2", code=2)
    assert re.search(r"no room for an epoch of 2 steps of \S+ s in 3 trainings; give --hours 0\.0\d+ or more", least)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hours", "1", "--resume", "x"), "--hours: run x goes on to the epochs that it was begun with"),
        (("--hours", "1"), "--hours: they tell how many epochs; leave --train.epochs out"),
        (("--fine-tune", "best.pt", "--from-study", "x"), "--from-study: --fine-tune takes the settings of its check"),
        (("--fine-tune", "best.pt", "--weights", "none"), "--weights: --fine-tune begins with those of its checkpoint"),
        (("--fine-tune", "gone.pt"), "gone.pt: no such checkpoint"),
    ],
)
def test_options_that_contradict_each_other_are_refused_in_one_line(project, tmp_path, options, message):
    data = ["--data", project[0] / "data"]
    said = run(tmp_path, ROOT / "experiments/final_train.py", *SMALL, *data, *options, code=2)
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_study_of_the_same_name_goes_on_and_one_on_other_data_is_refused(project):
    folder, _ = project
    again = run(folder, ROOT / "search/optuna_study.py", *STUDY)
    assert "4 trials" in again
    name = next((folder / "search/results").iterdir()).name
    write(folder / "other", train=2, test=0, seed=5)
    refused = run(folder, ROOT / "search/optuna_study.py", *STUDY, "--data", "other", "--study", name, code=2)
    assert "choose another name" in refused
    assert re.search(r"data \w+, now \w+", refused)
    changed = run(folder, ROOT / "search/optuna_study.py", *STUDY, "--train.batch", "3", code=2)
    assert "train.batch 2, now 3" in changed


@pytest.mark.parametrize(("flag", "value"), [("--trials", "0"), ("--heartbeat", "0"), ("--final-seeds", "0")])
def test_a_number_that_makes_no_study_is_refused_in_one_line(project, flag, value):
    said = run(project[0], ROOT / "search/optuna_study.py", *STUDY, flag, value, code=2)
    assert f"{flag}: expected at least 1, got 0" in said
    assert "Traceback" not in said


def test_what_cannot_work_is_refused_before_a_study_is_begun(project, tmp_path):
    write(tmp_path / "one", train=1, test=0)
    said = run(tmp_path, ROOT / "search/optuna_study.py", *STUDY, "--data", "one", code=2)
    assert "a search needs images to validate on" in said
    if not torch.cuda.is_available():
        device = [*STUDY, "--data", project[0] / "data", "--device", "cuda"]
        assert "try --device cpu" in run(tmp_path, ROOT / "search/optuna_study.py", *device, code=2)
    assert {path.name for path in tmp_path.iterdir()} == {"one"}


def test_a_winner_or_checkpoint_of_other_data_is_not_picked_up(project):
    folder, _ = project
    if not (folder / "third").exists():
        write(folder / "third", train=2, test=1, seed=6)
    assert "final_train.py" in run(folder, ROOT / "experiments/submit.py", "--data", "third", code=2)


def test_the_commands_without_a_flag_name_what_is_missing_and_the_two_ways_on(tmp_path):
    for script in ("search/optuna_study.py", "experiments/final_train.py", "experiments/submit.py"):
        said = run_process(tmp_path, ROOT / script, code=2)
        assert "data" in said
        assert "cellseg sample data/" in said
        assert "Traceback" not in said


def test_a_run_that_is_resumed_is_completed_and_not_doubled(project, store):
    folder, _ = project
    (final,) = runs_of(store, "cellseg-final")
    run(folder, ROOT / "experiments/final_train.py", *SMALL, "--resume", final.info.run_id)
    assert [each.step for each in store.get_metric_history(final.info.run_id, "train/loss")] == [1, 2, 3, 4]
    assert store.get_run(final.info.run_id).info.status == "FINISHED"


def test_torchrun_trains_one_network_in_two_processes_and_tracks_it_once(project, store):
    folder, _ = project
    before = {run.info.run_id for run in runs_of(store, "cellseg-final")}
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    said = run_process(folder, *torchrun, ROOT / "experiments/final_train.py", *SMALL, "--seed", "7")
    assert said.count("checkpoint ") == said.count("study demo-") == said.count(", digest ") == 1
    (new,) = (run for run in runs_of(store, "cellseg-final") if run.info.run_id not in before)
    assert (new.info.status, new.data.tags["processes"]) == ("FINISHED", "2")
    assert [each.step for each in store.get_metric_history(new.info.run_id, "train/loss")] == [1, 2, 3, 4]
    assert len(list((folder / "experiments/runs").glob(f"*/{new.info.run_id}/best.pt"))) == 1


def test_a_process_that_is_killed_ends_the_run_of_all(project, store):
    folder, _ = project
    before = {run.info.run_id for run in runs_of(store, "cellseg-final")}
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    long = [*SMALL, "--train.epochs", "500", "--seed", "8"]
    script = str(ROOT / "experiments/final_train.py")
    log = folder / "killed.log"
    with log.open("w") as said:
        started = psutil.Popen([*torchrun, script, *long], cwd=folder, stdout=said, stderr=subprocess.STDOUT)
    try:
        (new,) = wait_for(lambda: [run for run in runs_of(store, "cellseg-final") if run.info.run_id not in before])
        wait_for(lambda: "train/loss" in store.get_run(new.info.run_id).data.metrics)
        (second,) = (
            child
            for child in started.children(recursive=True)
            if script in child.cmdline() and child.environ().get("RANK") == "1"
        )
        second.kill()
        assert started.wait(PATIENCE) != 0
    finally:
        if started.poll() is None:
            for each in [*started.children(recursive=True), started]:  # torchrun's own have sessions of their own
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            started.wait()
    assert store.get_run(new.info.run_id).info.status in ("KILLED", "FAILED"), log.read_text()


def test_folds_are_trained_before_the_network_that_is_handed_in(tmp_path):
    write(tmp_path / "data", train=4, test=1)
    script, few = ROOT / "experiments/final_train.py", [*SMALL, "--train.epochs", "1", "--train.steps-per-epoch", "1"]
    said = run(tmp_path, script, *few, "--folds", "2")
    assert re.search(r"out of fold AP50  0\.\d{3}; mean over folds 0\.\d{3}, calibrated 0\.\d{3}", said)
    parent = re.search(r"folds +(\w+); the final network has seen all images for 1 epochs", said)[1]
    final = re.search(r"checkpoint (.+best\.pt)", said)[1]
    judged = re.search(r"out of fold AP50 .*", said)[0]
    (version,) = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_model_versions("name = 'cellseg'")
    assert f"{float(version.tags['AP50']):.3f}" in judged
    assert len(list(tmp_path.glob("experiments/runs/*/*/best.pt"))) == 3
    assert final in run(tmp_path, ROOT / "experiments/submit.py")
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("experiments/runs/*/*/best.pt")}
    again = run(tmp_path, script, *few, "--resume", parent)
    assert f"checkpoint {final}" in again
    assert "registered models:/cellseg/1, now models:/cellseg@best" in again
    assert written == {path: path.stat().st_mtime_ns for path in written}
    (place,) = tmp_path.glob(f"experiments/runs/*/{parent}")
    assert "AP50" in run(tmp_path, "cellseg", "score", place / "out_of_fold.json", place / "truth.json")
    assert "has 2 folds, got 3" in run(tmp_path, script, *few, "--folds", "3", "--resume", parent, code=2)
    assert "leave one out" in run(tmp_path, script, *few, "--folds", "2", "--all-data", code=2)
    assert "ask for fewer folds" in run(tmp_path, script, *few, "--folds", "50", code=2)


def wait_for(found):
    """What `found` returns as soon as it is something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.3)
    pytest.fail(f"nothing came in {PATIENCE} s")


def test_a_run_whose_data_changed_is_not_resumed(project):
    folder, _ = project
    shutil.copytree(folder / "data", folder / "changing")
    run(folder, ROOT / "experiments/final_train.py", *SMALL, "--data", "changing", "--train.epochs", "1")
    newest = max((folder / "experiments/runs").glob("*/*/run.json"), key=lambda path: path.stat().st_mtime)
    shutil.rmtree(sorted((folder / "changing/train").iterdir())[0])
    refused = run(folder, ROOT / "experiments/final_train.py", *SMALL, "--resume", newest.parent.name, code=2)
    assert "has changed since it was started" in refused


@pytest.mark.parametrize("script", ["search/optuna_study.py", "experiments/final_train.py", "experiments/submit.py"])
def test_help_loads_nothing_heavy(script):
    program = (
        f"import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        f"except SystemExit as end: assert end.code == 0\n"
        f"print(sorted({{'torch', 'mlflow', 'optuna', 'cv2', 'matplotlib'}} & set(sys.modules)))"
    )
    assert run_process(ROOT, "-c", program).rstrip().endswith("[]")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_the_genuine_image_is_inspected_and_trained_on(tmp_path):
    found = json.loads(run(tmp_path, "cellseg", "inspect", SHARED / "hw3_sample", "--json"))
    assert found["cells_per_class"] == {"class1": 2, "class2": 159, "class3": 0, "class4": 0}
    assert found["channel_order"] == "bgr"
    assert found["best_possible_recall"]["fitted"] > 0.9
    run(tmp_path, ROOT / "experiments/final_train.py", *SMALL, "--data", SHARED / "hw3_sample", "--all-data")
    assert list(tmp_path.glob("experiments/runs/*/*/best.pt"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_consep_is_trained_validated_and_submitted(tmp_path):
    few = ["--data", SHARED / "consep", "--predict.detections", "20", "--dataset.validation-fraction", "0.1"]
    run(tmp_path, ROOT / "experiments/final_train.py", *SMALL, *few, "--train.epochs", "1")
    run(tmp_path, ROOT / "experiments/submit.py", "--data", SHARED / "consep", "--out", "consep.zip")
    images = read_image_ids(SHARED / "consep/test_image_name_to_ids.json")
    assert len(images) == 9
    assert lint(read_results(tmp_path / "consep.zip"), images) == []
