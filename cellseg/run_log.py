"""What a store tells of a run that is over, or under way, which stays as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cellseg.run_store import exists, one_line_if_lost, opened

from mlflow import MlflowClient
from mlflow.entities import Run as Stored
from mlflow.exceptions import MlflowException


@dataclass(frozen=True)
class Logged:
    """A run as the store has it."""

    id: str
    name: str
    status: str
    """RUNNING, FINISHED, KILLED or FAILED"""
    started: datetime
    """in UTC"""
    ended: datetime | None
    """None while it runs"""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """the last value of each"""


def logged(run_id: str, *, root: Path) -> Logged:
    """The run, which stays as it is. Raises ValueError where the store has none, or goes away."""
    with one_line_if_lost():
        found = stored(_reading(root), run_id)
    info, data = found.info, found.data
    started, ended = (
        None if moment is None else datetime.fromtimestamp(moment / 1000, UTC)
        for moment in (info.start_time, info.end_time)
    )
    assert started is not None
    return Logged(run_id, info.run_name, info.status, started, ended, data.params, data.tags, data.metrics)


def history(run_id: str, metric: str, *, root: Path) -> dict[int, float]:
    """The value of a metric at each step, rising, the last where there are several; empty where there is none."""
    with one_line_if_lost():
        points = _reading(root).get_metric_history(run_id, metric)
    return {point.step: point.value for point in sorted(points, key=lambda point: (point.step, point.timestamp))}


def add_text(run_id: str, text: str, path: str, *, root: Path) -> None:
    """Write a text file into the artifacts of a run, which does not begin again. Raises ValueError as `logged`."""
    with one_line_if_lost():
        client = _reading(root)
        stored(client, run_id)
        client.log_text(run_id, text, path)


def stored(client: MlflowClient, run_id: str) -> Stored:
    """The run as MLflow has it. Raises ValueError where there is none."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise ValueError(
            f"run {run_id}: not in {client.tracking_uri}; was the database moved, or is MLFLOW_TRACKING_URI another?"
        ) from error


def _reading(root: Path) -> MlflowClient:
    """A client of a store that is there. Raises ValueError."""
    if not exists(root):
        raise ValueError(f"{root / 'mlflow.db'}: no such store of runs; go to the folder of the training")
    return opened(root)[0]
