"""Which errors a user can mend, so that they end the worker, and which are a trial's own."""

import errno
from collections.abc import Iterator

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from cellseg.outbox import FAILURES

MENDABLE = (OSError, SQLAlchemyError, StorageInternalError, *FAILURES)
"""of files, of the study's storage and of MLflow's store"""


def mendable(error: Exception) -> bool:
    """Whether an error came of a file or a store, so that the trial is to be tried again; memory is the trial's own."""
    behind = [each for each in _causes(error) if isinstance(each, MENDABLE)]
    return bool(behind) and not any(isinstance(each, OSError) and each.errno == errno.ENOMEM for each in behind)


def told(error: Exception) -> str:
    """An error in one line, for a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from."""
    while error:
        yield error
        error = error.__cause__
