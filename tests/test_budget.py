import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from cellseg import budget
from cellseg.budget import KEPT, Costs, Pace, Schedule, epochs_for, epochs_within, measured, sentence
from cellseg.config_fields import to_dict
from cellseg.experiment import planned, prepare

COSTS = Costs(step=0.2, validation=10.0, epoch=1.0)
EVERY_THIRD = Schedule(steps=50, validate_every=3)  # 11 s an epoch


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the module sees on its clock, for a test to move on."""
    now = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    return now


def run(batches, clock, seconds):
    """Use up batches, each in its seconds."""
    used = 0
    for _, taken in zip(batches, seconds, strict=False):
        clock[0] += taken
        used += 1
    return used


def test_the_first_steps_are_not_counted_and_one_slow_step_does_not_matter(clock):
    steps = Pace(range(100), 1)
    assert run(steps, clock, [50, 9, 9, 9, 1, 2, 3, 2, 40]) == 3 + 4 + 1  # over a minute
    assert steps.seconds == 2  # the median of 1, 2, 3, 2


def test_slow_steps_end_after_the_least_and_fast_ones_after_the_most(clock):
    assert run(Pace(range(100), 1), clock, [30.0] * 100) == 3 + 4 + 1
    assert run(Pace(range(100), 1), clock, [0.1] * 100) == 3 + 30 + 1


def test_a_step_of_several_passes_takes_them_all(clock):
    steps = Pace(range(100), 2)
    run(steps, clock, [1.0, 2.0] * 50)
    assert steps.seconds == 3.0


def test_every_third_epoch_and_the_last_are_validated():
    assert [EVERY_THIRD.validations(epochs) for epochs in (1, 3, 4, 9, 10)] == [1, 1, 2, 3, 4]
    assert EVERY_THIRD.seconds(9, COSTS) == 9 * 11 + 3 * 10
    assert EVERY_THIRD.seconds(10, COSTS) == 10 * 11 + 4 * 10


def test_folds_are_validated_once_more_and_the_last_network_is_not():
    folds = replace(EVERY_THIRD, folds=5, last_steps=60)  # 13 s an epoch of all images
    assert folds.seconds(9, COSTS) == 5 * (9 * 11 + (3 + 1) * 10) + 9 * 13


@pytest.mark.parametrize(("room", "epochs"), [(21.5, 1), (128.5, 8), (129.5, 9), (149.5, 9), (150.5, 10)])
def test_as_many_epochs_are_planned_as_end_in_the_hours(room, epochs):
    hours = (room + 30) / (1 - KEPT) / 3600
    assert epochs_within(hours, 30, EVERY_THIRD, COSTS) == epochs


def test_all_trainings_with_folds_share_the_hours():
    folds = replace(EVERY_THIRD, folds=2, last_steps=50)
    hours = (2 * 139 + 99 + 0.1) / (1 - KEPT) / 3600  # 9 epochs: 99 s, 3 validations of 10 s, and one more
    assert epochs_within(hours, 0, folds, COSTS) == 9
    assert epochs_within(hours - 0.001, 0, folds, COSTS) == 8


@pytest.mark.parametrize("hours", [0.006, 0.001, 0.0, -1.0])
def test_too_few_hours_are_refused_with_the_least_that_would_do(hours):
    with pytest.raises(ValueError, match=rf"--hours {hours:g}: no room for an epoch of 50 steps of 0\.2 s") as caught:
        epochs_within(hours, 4, EVERY_THIRD, COSTS)
    least = float(re.search(r"give --hours (\S+) or more", str(caught.value))[1])
    assert least == 0.0078  # (11 + 10 + 4) s / .9
    assert epochs_within(least, 4, EVERY_THIRD, COSTS) == 1


def test_the_plan_is_told_in_one_line():
    costs = Costs(step=0.15, validation=9.0, epoch=1.0)
    assert sentence(0.5, 38, Schedule(250, 3), costs) == (
        "0.5 h: 0.15 s a step, 38 epochs of 250 steps, 13 validations of 9 s"
    )
    without = sentence(1, 2, Schedule(4, 1, folds=5), replace(costs, validation=0.0))
    assert without == "1 h: 0.15 s a step, 2 epochs of 4 steps, in each of 5 folds and once more"


@pytest.fixture
def short(monkeypatch):
    """Fewer steps are timed."""
    monkeypatch.setattr(budget, "TIMED", (1, 3))


def test_what_is_measured_is_thrown_away_and_plans_the_epochs(short, folder, run_config, tmp_path):
    prepared = prepare(run_config, folder)
    epochs, said = epochs_for(prepared, 0.1, time.monotonic() - 100, tmp_path / "runs")
    told = re.fullmatch(r"0\.1 h: (\S+) s a step, (\d+) epochs of 2 steps, \2 validations of (\S+) s", said)
    step, validation = float(told[1]), float(told[3])
    assert int(told[2]) == epochs
    assert step > 0
    assert validation > budget.CHARTS
    # 224 s are left of 360; checkpoints are not told, and measuring took its time
    assert epochs < 224 / (2 * step * 0.99 + validation * 0.99)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_training_without_validation_images_costs_no_validation(short, folder, run_config, tmp_path):
    config = replace(run_config, dataset=replace(run_config.dataset, validation_fraction=0.0))
    costs = measured(prepare(config, folder), tmp_path)
    assert costs.validation == 0
    assert min(costs.step, costs.epoch) > 0


def test_validations_cost_by_their_pixels(short, data, folder, run_config, tmp_path, monkeypatch, clock):
    """A second an image: the smallest warms up, that of median size is timed, and stands for all."""
    prepared = planned(run_config, folder, data)

    def predicted(_model, images, _config):
        clock[0] += len(list(images))
        return []

    monkeypatch.setattr(budget, "predict", predicted)
    one = measured(replace(prepared, validation=[3]), tmp_path)
    three = measured(replace(prepared, validation=[1, 2, 3]), tmp_path)
    assert (one.validation, three.validation) == (1 + budget.CHARTS, 3 + budget.CHARTS)


PROGRAM = """
import json, sys, time, torch
from pathlib import Path
from cellseg import budget
from cellseg.config import RunConfig
from cellseg.config_fields import from_dict
from cellseg.distributed import joined
from cellseg.experiment import prepare
torch.set_num_threads(1)
budget.TIMED = (1, 3)
config, folder, runs = from_dict(RunConfig, json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
with joined(torch.device("cpu")):
    print(json.dumps(budget.epochs_for(prepare(config, folder), 0.1, time.monotonic(), runs)))
"""


def test_two_processes_plan_the_same_epochs(folder, run_config, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", PROGRAM, json.dumps(to_dict(run_config)), str(folder), str(tmp_path)]
    started = [
        subprocess.Popen(
            command, env={**os.environ, **place, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    (first, errors), (second, _) = (process.communicate(timeout=240) for process in started)
    assert first, errors.decode()
    assert json.loads(first) == json.loads(second)
