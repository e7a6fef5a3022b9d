"""The store of all runs: the server or database that MLFLOW_TRACKING_URI names, or else <root>/mlflow.db.

There plain `mlflow ui` looks, and files lie under <root>/mlruns/<experiment>. What imports mlflow imports this first.
"""

import fcntl
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # mlflow reads these when it is imported
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cellseg import saved_views

KIND = {"mlflow.experimentKind": "custom_model_development"}  # shows charts; the other kind is for language models


def opened(root: Path) -> tuple[MlflowClient, Path | None]:
    """A client of the store, made where there is none, and the folder of its files; None where a server chooses."""
    if mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        return MlflowClient(), None
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")  # takes seconds, so not under the lock
    root = root.resolve()
    folder = root / "mlruns"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # processes that make one database at once break it
        return MlflowClient(f"sqlite:///{root / 'mlflow.db'}"), folder


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


@contextmanager
def one_line_if_lost() -> Iterator[None]:
    """Raises ValueError, one line, where MLflow refuses or its store is gone."""
    try:
        yield
    except MlflowException as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise ValueError(f"MLflow: {reason}; is its store there, and MLFLOW_TRACKING_URI right?") from error
