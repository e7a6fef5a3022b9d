"""What trainings and studies that are killed begin with."""

from cellseg.run_store import opened

import pytest


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The file of an MLflow store without runs; making one takes longer than a training of a test."""
    place = tmp_path_factory.mktemp("store")
    opened(place)
    return place / "mlflow.db"
