import contextlib
import json
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from cellseg import checkpoint, folds
from cellseg.experiment import last_checkpoint, opened, resumed
from cellseg.folds import final_config, is_folds_run, train_folds
from cellseg.json_files import read_results, read_truth

EXPERIMENT = "folds"


class Kill:
    """Ends the process in a step of a training, counted over all trainings."""

    def __init__(self, step):
        self.left = step

    def step(self, metrics, step):
        self.left -= 1
        if not self.left:
            raise InterruptedError("the machine went down")

    def epoch(self, report):
        return False


@pytest.fixture(scope="module")
def config(run_config):
    """Two folds; all boxes that the network finds are kept, so that no image is without a result."""
    return replace(
        run_config,
        dataset=replace(run_config.dataset, folds=2),
        predict=replace(run_config.predict, score_threshold=0.0, detections=30),
    )


@pytest.fixture(scope="module")
def family(folder, config, tmp_path_factory):
    """A root in which a training with folds was killed twice, in its second fold and its final, and resumed twice."""
    root = tmp_path_factory.mktemp("folds")
    data = opened(config, folder)
    with contextlib.chdir(root):
        with pytest.raises(InterruptedError):
            train_folds(config, folder, data, experiment=EXPERIMENT, watchers=[Kill(7)])
        (parent,) = (path.parent.name for path in root.glob("**/run.json") if is_folds_run(path.parent.name))
        before = written(root)
        again, place = resumed(parent)
        with pytest.raises(InterruptedError):  # 2 steps are told again, 2 are new, 1 of the final one
            train_folds(again, place, data, experiment=EXPERIMENT, run_id=parent, watchers=[Kill(5)])
        folded = train_folds(again, place, data, experiment=EXPERIMENT, run_id=parent)
    return root, data, folded, before


def written(root):
    """When each network of a root was written last."""
    return {path: path.stat().st_mtime_ns for path in root.glob("**/last.pt")}


def children(root, parent):
    """The runs below a parent, by stage."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    mine = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert len(mine) == len(runs) - 1
    return {run.data.tags["stage"]: run for run in mine}, client.get_run(parent)


def test_every_fold_and_the_final_network_are_runs_of_one_parent_however_often_it_was_killed(family):
    root, _, folded, _ = family
    runs, parent = children(root, folded.run_id)
    assert set(runs) == {"fold 1 of 2", "fold 2 of 2", "final"}
    assert {run.info.status for run in [*runs.values(), parent]} == {"FINISHED"}
    assert runs["fold 2 of 2"].info.run_name == "fold 2 of 2 · demo resnet18 seed 0 · a8×2 · lr 1e-3"
    assert parent.info.run_name == "folds · demo resnet18 seed 0 · a8×2 · lr 1e-3"
    assert folded.final.run_id == runs["final"].info.run_id


def test_a_finished_fold_is_not_trained_again(family):
    root, _, folded, before = family
    runs, _ = children(root, folded.run_id)
    after = written(root)
    first, second = (
        next(path for path in after if path.parent.name == runs[f"fold {number} of 2"].info.run_id) for number in (1, 2)
    )
    assert after[first] == before[first]
    assert after[second] != before[second]  # it had one of its two epochs
    assert checkpoint.load(second).epoch == 2


def test_the_folds_hold_back_every_image_once_and_their_results_cover_all(family):
    root, data, folded, _ = family
    runs, _ = children(root, folded.run_id)
    place = root / "experiments/runs" / data.digest
    held = []
    for number in (1, 2):
        name = runs[f"fold {number} of 2"].info.run_id
        found = read_results(place / name / folds.RESULTS)
        held.append({result["image_id"] for result in found})
        saved = checkpoint.load(place / name / "best.pt").config
        assert (saved.dataset.folds, saved.dataset.fold, saved.predict.calibration) == (2, number - 1, None)
    everything = {record.image_id for record in data.records}
    assert not held[0] & held[1]
    assert held[0] | held[1] == everything
    results, truth = (
        read_results(place / folded.run_id / "out_of_fold.json"),
        read_truth(place / folded.run_id / "truth.json"),
    )
    assert {result["image_id"] for result in results} == everything
    assert {image["id"] for image in truth["images"]} == everything
    assert len(truth["annotations"]) == 4 * 8
    order = [(result["image_id"], -result["score"]) for result in results]
    assert order == sorted(order)


def test_the_epochs_are_those_with_the_highest_mean_over_the_folds(family):
    root, _, folded, _ = family
    runs, parent = children(root, folded.run_id)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    curves = [
        [each.value for each in client.get_metric_history(runs[f"fold {number} of 2"].info.run_id, "val/AP50")]
        for number in (1, 2)
    ]
    means = [sum(pair) / 2 for pair in zip(*curves, strict=True)]
    assert len(means) == 2
    assert folded.epochs == means.index(max(means)) + 1
    history = client.get_metric_history(folded.run_id, "folds/AP50")
    assert [(each.step, each.value) for each in history] == [(1, pytest.approx(means[0])), (2, pytest.approx(means[1]))]
    assert parent.data.metrics["out_of_fold/AP50"] == folded.out_of_fold.plain.metrics["AP50"]


def test_the_final_network_has_seen_all_images_and_carries_what_the_folds_taught(family):
    root, _, folded, _ = family
    _, final = checkpoint.load_model(root / folded.final.best)
    assert folded.out_of_fold.calibration is not None
    assert (final.config.dataset.folds, final.config.dataset.validation_fraction) == (0, 0.0)
    assert final.config.train.epochs == final.epoch == folded.epochs
    assert final.config.predict.calibration == folded.out_of_fold.calibration
    assert final.config.predict.pq_threshold == folded.out_of_fold.pq_threshold


def test_a_calibration_that_was_learnt_is_part_of_the_final_config(family, config):
    learnt = replace(family[2].out_of_fold, calibration=((0.5, 1.0, 0.0, -2.0),) * 4, pq_threshold=0.35)
    final = final_config(config, 7, learnt)
    assert final.predict.calibration == ((0.5, 1.0, 0.0, -2.0),) * 4
    assert (final.predict.pq_threshold, final.train.epochs, final.dataset.folds) == (0.35, 7, 0)
    assert final.train.learning_rate == config.train.learning_rate


def test_the_submission_takes_the_final_network_though_a_fold_is_newer(family):
    root, data, folded, _ = family
    runs = root / "experiments/runs"
    stages, _ = children(root, folded.run_id)
    (runs / data.digest / stages["fold 1 of 2"].info.run_id / "best.pt").touch()
    assert last_checkpoint(data.digest, runs) == root / folded.final.best
    assert json.loads((root / folded.final.best).with_name("run.json").read_text())["ended"] is True


def test_what_cannot_be_trained_in_folds_is_refused_in_one_line(family, config, folder, monkeypatch):
    root, data, folded, _ = family
    whole = replace(config, dataset=replace(config.dataset, folds=0))
    part = replace(config, dataset=replace(config.dataset, subset=0.5))
    with contextlib.chdir(root):
        for wrong, message in ((whole, "expected at least 2 folds"), (part, "expected 1 with folds")):
            with pytest.raises(ValueError, match=message):
                train_folds(wrong, folder, data, experiment=EXPERIMENT)
        with pytest.raises(ValueError, match="has changed since it was started"):
            train_folds(config, folder, replace(data, digest="other"), experiment=EXPERIMENT, run_id=folded.run_id)
        with pytest.raises(ValueError, match="expected a run that --folds started"):
            train_folds(config, folder, data, experiment=EXPERIMENT, run_id=folded.final.run_id)
        monkeypatch.setattr(folds, "world", lambda: (0, 2))
        with pytest.raises(ValueError, match="expected one process, found 2"):
            train_folds(config, folder, data, experiment=EXPERIMENT)
