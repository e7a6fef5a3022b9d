import pace
import pytest
from pace import Clock

from cellseg.train import EpochReport


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the module sees on its clock, for a test to move on."""
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    return now


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
