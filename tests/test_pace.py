import pace
import pytest
from pace import Clock, Pace

from cellseg.train import EpochReport


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the module sees on its clock, for a test to move on."""
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
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


def report(epoch, tmp_path, replayed=False):
    return EpochReport(epoch, 10 * epoch, {}, [], {}, True, tmp_path / "last.pt", replayed)


def test_the_seconds_of_a_training_add_up_over_its_processes(clock, tmp_path):
    said = []
    first = Clock(tmp_path / "seconds.txt", 20, said.append)
    first.step({"train/loss": 1.5}, 10)
    clock[0] = 20.0
    first.epoch(report(1, tmp_path))
    clock[0] = 100.0
    second = Clock(tmp_path / "seconds.txt", 20, said.append)
    second.epoch(report(1, tmp_path, replayed=True))
    second.step({"train/loss": 0.5}, 20)
    clock[0] = 110.0
    second.epoch(report(2, tmp_path))
    assert second.seconds == 30.0
    assert said == ["step 10 of 20, loss 1.500, 2.00 s a step", "step 20 of 20, loss 0.500, 1.50 s a step"]
