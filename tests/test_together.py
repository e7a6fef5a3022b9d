"""Several processes train one recipe, as the accuracy benchmark starts them."""

import pytest
from contestants import contestant, ours

from cellseg.checkpoint import load

MICRO = "demo-oversample"


@pytest.fixture
def pair(folder):
    return contestant(f"{MICRO}@2", folder, "cpu")


def test_two_processes_take_the_steps_of_one_with_twice_the_images(pair, tmp_path):
    said = []
    trained = pair.train(2, 3, tmp_path, said.append)
    saved = load(tmp_path / "last.pt")
    assert (trained.steps, saved.training["step"], saved.training["processes"], saved.config.seed) == (2, 2, 2, 3)
    assert [line for line in said if "step 2 of 2" in line] == [said[-1]]
    assert trained.seconds == pytest.approx(float((tmp_path / "seconds.txt").read_text()))


def test_a_rate_is_that_of_all(pair):
    assert 0 < pair.step_seconds() < 600


def test_processes_are_part_of_what_is_on_record(pair, folder):
    assert pair.settings() == {**ours(MICRO, folder, "cpu").settings(), "processes": 2}


def test_one_process_or_none_is_no_pair(folder):
    with pytest.raises(ValueError, match="expected @2 or more processes, got @1"):
        contestant(f"{MICRO}@1", folder, "cpu")


def test_processes_that_fail_are_one_line(pair, tmp_path):
    (tmp_path / "last.pt").write_text("no checkpoint")
    with pytest.raises(ValueError, match="2 processes ended with 1"):
        pair.train(2, 3, tmp_path, lambda text: None)
