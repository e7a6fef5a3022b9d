"""A training that nothing disturbed, and places for others."""

import shutil
import time

import pytest
from commands import ended, kill_all, warm_up
from trainings import go_on, left_in


@pytest.fixture(autouse=True)
def nothing_runs_on():
    """No process outlives its test."""
    yield
    kill_all()


@pytest.fixture
def place(store, tmp_path):
    """Where a training or a study is run, beside a store."""
    shutil.copy(store, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def whole(folder, store, tmp_path_factory):
    """What a training that was never killed leaves, and the seconds that it took."""
    place = tmp_path_factory.mktemp("whole")
    shutil.copy(store, place)
    warm_up()
    begun = time.monotonic()
    assert ended(go_on(place, folder)) == 0, (place / "log").read_text()
    return left_in(place), time.monotonic() - begun
