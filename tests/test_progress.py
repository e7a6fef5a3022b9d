"""One training in two processes, a real group on the CPU, against one process with the same global batch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cellseg import checkpoint
from cellseg.config_fields import to_dict
from cellseg.model import build_model
from cellseg.progress import begin

PROGRAM = Path(__file__).with_name("train_in_processes.py")


@pytest.fixture(scope="module")
def config(run_config, tmp_path_factory):
    """Four images a step in all. The norm is frozen, since each process would normalise by its own images; AdamW would
    make steps of the full rate out of what rounding leaves of a gradient; and all RoIs are taken, since which are
    sampled depends on the order of proposals whose scores rounding tells apart."""
    weights = tmp_path_factory.mktemp("weights") / "state.pt"
    torch.manual_seed(5)
    torch.save(build_model(run_config.model).state_dict(), weights)
    return replace(
        run_config,
        model=replace(run_config.model, norm="frozen", weights=str(weights), roi_batch=512),
        train=replace(
            run_config.train, epochs=2, steps_per_epoch=2, batch=4, amp=False, optimizer="sgd", learning_rate=1e-3
        ),
        predict=replace(run_config.predict, score_threshold=0.0),
    )


def train(config, data_folder, folder, processes, *arguments):
    """What the observers of the processes were told, by rank."""
    folder.mkdir(exist_ok=True)
    config = replace(config, train=replace(config.train, batch=config.train.batch // processes))
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *start, str(PROGRAM), json.dumps(to_dict(config)), str(data_folder), str(folder)]
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def trainings(config, folder, tmp_path_factory):
    """(what observers were told, last.pt) of one process and of two."""
    root = tmp_path_factory.mktemp("processes")
    return {
        count: (train(config, folder, root / str(count), count), checkpoint.load(root / str(count) / "last.pt"))
        for count in (1, 2)
    }


def test_two_processes_have_the_losses_of_one_with_the_same_images(trainings):
    (alone,), (first, second) = trainings[1][0], trainings[2][0]
    assert len(alone["steps"]) == len(first["steps"]) == 4
    for one, two in zip(alone["steps"], first["steps"], strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    assert second["steps"] == first["steps"]  # each knows the figures of all


def test_two_processes_end_with_the_network_of_one(trainings):
    alone, together = trainings[1][1], trainings[2][1]
    for name, value in alone.model.items():
        assert torch.allclose(together.model[name], value, atol=2e-3), name
    assert together.epoch == 2


def test_each_validation_image_is_predicted_once_though_shares_are_unequal(trainings):
    (alone,), (first, second) = trainings[1][0], trainings[2][0]
    for one, two in zip(alone["results"], first["results"], strict=True):
        assert [each["image_id"] for each in two] == [each["image_id"] for each in one]
        assert {each["image_id"] for each in two} == {1, 2, 4}
    assert first["metrics"] == second["metrics"]
    assert [each.keys() for each in first["metrics"]] == [each.keys() for each in alone["metrics"]]
    assert second["results"] == [[], []]


def test_a_training_of_two_processes_goes_on_in_two_as_if_it_had_not_stopped(trainings, config, folder, tmp_path):
    train(config, folder, tmp_path / "cut", 2, "stop")
    assert checkpoint.load(tmp_path / "cut" / "last.pt").epoch == 1
    resumed, _ = train(config, folder, tmp_path / "cut", 2, "resume")
    whole, saved = trainings[2]
    assert resumed["steps"] == whole[0]["steps"]
    again = checkpoint.load(tmp_path / "cut" / "last.pt")
    assert all(torch.equal(again.model[name], value) for name, value in saved.model.items())


def test_a_training_does_not_go_on_in_another_number_of_processes(trainings):
    """An epoch has fewer steps in more processes: the learning rate would jump."""
    _, saved = trainings[2]
    with pytest.raises(ValueError, match="started in 2 processes, this is one of 1; use 2"):
        begin(saved.config, torch.device("cpu"), saved)
