"""The store of all runs: the server or database that MLFLOW_TRACKING_URI names, or else <root>/mlflow.db.

There plain `mlflow ui` looks, and files lie under <root>/mlruns/<experiment>. What imports mlflow imports this first.
"""

import fcntl
import os
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # mlflow reads these when it is imported
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own 7 hold a training up for minutes

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cellseg import saved_views
from cellseg.wording import first_line

T = TypeVar("T")
PATIENCE_SECONDS, PAUSE_SECONDS = 300.0, 5.0
KIND = {"mlflow.experimentKind": "custom_model_development"}  # shows charts; the other kind is for language models


def opened(root: Path) -> tuple[MlflowClient, Path | None]:
    """A client of the store, made where there is none, and the folder of its files; None where a server chooses.

    Raises ValueError, one line, where the store cannot be used.
    """
    if mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        with one_line_if_lost():
            return MlflowClient(), None
    folder = root.resolve() / "mlruns"
    database = folder.with_name("mlflow.db")
    with one_line_if_unusable(database):
        if not database.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _make(database, folder)
        return MlflowClient(f"sqlite:///{database}"), folder


def _make(database: Path, folder: Path) -> None:
    """Make a store elsewhere and move it into its place: one that is half made, or made twice at once, is broken."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # takes seconds, so not under the lock

    passing = folder / ".unfinished"
    with locked(folder):
        if database.is_file():
            return
        shutil.rmtree(passing, ignore_errors=True)  # what a killed process left
        passing.mkdir()
        address = f"sqlite:///{passing / database.name}"
        store = SqlAlchemyStore(address, folder.as_uri())  # type: ignore[no-untyped-call]
        store.engine.dispose()
        (passing / database.name).rename(database)
        shutil.rmtree(passing)


def exists(root: Path) -> bool:
    """Whether there is a store, or a server is named."""
    return bool(mlflow.is_tracking_uri_set()) or (root / "mlflow.db").is_file()  # type: ignore[no-untyped-call]


@contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Alone among the processes of this machine that use the store with this folder; None locks nothing."""
    if folder is None:
        yield
        return
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def experiment_id(client: MlflowClient, name: str, folder: Path | None) -> str:
    """Id of the experiment, made where there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if folder is None else (folder / name).as_uri()
        try:
            return client.create_experiment(name, artifact_location=location, tags=KIND | saved_views.tags())
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    return found.experiment_id


def away(error: Exception) -> bool:
    """Whether the store does not answer, or says that it cannot now, so that the same may succeed later."""
    if isinstance(error, MlflowException):
        return bool(error.get_http_status_code() >= 500)  # type: ignore[no-untyped-call]
    if isinstance(error, requests.RequestException):
        return error.response is None or error.response.status_code >= 500
    return False


def patiently(action: Callable[[], T]) -> T:
    """The action's value, tried again for some minutes while the store is away. Raises what it raises."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return action()
        except MlflowException as error:
            if not away(error) or time.monotonic() > until:
                raise
        time.sleep(PAUSE_SECONDS)


@contextmanager
def one_line_if_unusable(database: Path) -> Iterator[None]:
    """Raises ValueError, one line, where the file cannot be one of this MLflow's databases."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        reason = textwrap.shorten(str(error), 250, placeholder=" …")
        todo = "free some space" if "disk is full" in reason else "mend it or move it away"
        raise ValueError(f"{database}: MLflow cannot use it ({reason}); {todo}") from error


@contextmanager
def one_line_if_lost() -> Iterator[None]:
    """Raises ValueError, one line, where MLflow refuses or its store is gone."""
    try:
        yield
    except MlflowException as error:
        raise ValueError(f"MLflow: {first_line(error)}; is its store there, and MLFLOW_TRACKING_URI right?") from error
