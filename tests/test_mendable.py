"""What ends a worker, and what ends its trial alone."""

import errno

from cellseg.run_store import one_line_if_lost

import pytest
from mendable import mendable
from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

LOST = OperationalError("SELECT 1", {}, ConnectionError())


def caught(cause):
    """The one line that MLflow's errors become."""
    with pytest.raises(ValueError) as told, one_line_if_lost():
        raise cause
    return told.value


@pytest.mark.parametrize(
    "error",
    [
        *(FileNotFoundError("weights.pt"), OSError(errno.ENOSPC, "full"), LOST, StorageInternalError("lost")),
        *(MlflowException("away"), caught(MlflowException("away")), ConnectionError()),
    ],
    ids=repr,
)
def test_files_and_stores_are_for_the_user_to_mend(error):
    assert mendable(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Expected more than 1 value per channel when training"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        FloatingPointError("nan"),
    ],
    ids=repr,
)
def test_memory_and_what_comes_of_the_settings_is_the_trials_own(error):
    assert not mendable(error)
