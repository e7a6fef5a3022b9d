"""An MLflow run as a context manager; the only importer of mlflow.

Runs go to the store that MLFLOW_TRACKING_URI names, or else to <root>/mlflow.db, where plain `mlflow ui` looks, with
their files under <root>/mlruns/<experiment>. Every call names its run: several may be open in one process.
"""

import fcntl
import importlib
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # mlflow reads these three when it is imported
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.entities import Run as Stored
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from cellseg.codes import Array
from cellseg.git import git_commit, git_dirty

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
KIND = {"mlflow.experimentKind": "custom_model_development"}  # shows charts; the other kind is for language models
LONGEST_PARAM = 6000
LONGEST_TAG = 500
FLUSH_SECONDS = 5.0
REASON_TAGS = {"KILLED": "pruned", "FAILED": "failure"}


class Run:
    """An open run; its metrics are buffered, everything else is logged at once."""

    def __init__(self, client: MlflowClient, run_id: str, *, resumed: bool = False) -> None:
        self.id = run_id
        self._client = client
        self._resumed = resumed
        self._last_steps: dict[str, float] = {}
        self._buffer: list[Metric] = []
        self._flushed = time.monotonic()
        self._end: tuple[str, str] = ("FINISHED", "")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log figures of a step, but for those that are not finite.

        Characters that MLflow refuses in a name become "_". In a resumed run, a step that was logged before the
        interruption is not logged again.
        """
        now = int(time.time() * 1000)
        for name, value in values.items():
            key = _accepted(name)
            if math.isfinite(value) and step > self._last_step(key):
                self._buffer.append(Metric(key, float(value), now, step))
        if len(self._buffer) >= METRICS_PER_BATCH or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the buffered metrics."""
        pending, self._buffer, self._flushed = self._buffer, [], time.monotonic()
        for first in range(0, len(pending), METRICS_PER_BATCH):
            self._client.log_batch(self.id, metrics=pending[first : first + METRICS_PER_BATCH])

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, their text cut to what MLflow takes."""
        listed = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in values.items()]
        for first in range(0, len(listed), PARAMS_PER_BATCH):
            self._client.log_batch(self.id, params=listed[first : first + PARAMS_PER_BATCH])

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self._client.set_tag(self.id, name, value)

    def json(self, content: Mapping[str, Any], path: str) -> None:
        """Log plain dicts, lists, numbers and strings as an artifact."""
        self._client.log_dict(self.id, dict(content), path)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into a folder of the artifacts. Raises FileNotFoundError."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file to keep in run {self.id}")
        self._client.log_artifact(self.id, str(path), folder)

    def figure(self, figure: "Figure", path: str) -> None:
        """Draw a matplotlib figure into an artifact, all of its labels included."""
        self._client.log_figure(self.id, figure, path, save_kwargs={"bbox_inches": "tight"})

    def image(self, image: Array, key: str, step: int) -> None:
        """Log an image (H, W, 3) uint8 of a step, under a key as metrics have them."""
        self._client.log_image(self.id, image, key=_accepted(key), step=step)

    def end_as(self, status: Literal["KILLED", "FAILED"], reason: str) -> None:
        """Let the run end with this status and, in one line, the tag `pruned` (KILLED) or `failure` (FAILED)."""
        self._end = (status, " ".join(reason.split())[:LONGEST_TAG])

    def close(self) -> None:
        """Send what is buffered and end the run."""
        status, reason = self._end
        try:
            self.flush()
        finally:
            if reason:
                self.tag(REASON_TAGS[status], reason)
            self._client.set_terminated(self.id, status)

    def _last_step(self, name: str) -> float:
        """The last step that an earlier process logged, from the whole history: "latest" could be out of order."""
        if not self._resumed:
            return -math.inf
        if name not in self._last_steps:
            history = self._client.get_metric_history(self.id, name)
            self._last_steps[name] = max((metric.step for metric in history), default=-math.inf)
        return self._last_steps[name]


@contextmanager
def start(
    experiment: str,
    name: str,
    *,
    root: Path,
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
    parent: str | None = None,
    run_id: str | None = None,
    system_metrics: bool = True,
) -> Iterator[Run]:
    """A run that ends with the block: FINISHED, FAILED after an exception, KILLED after an interruption.

    With run_id, that run goes on: name, parent, params and config.json stay as they were. Raises ValueError where the
    store has no such run, refuses what is logged, or goes away.
    """
    with _one_line_if_lost():
        client, folder = _store(root)
        labels = {**(tags or {}), **_git_tags()}
        if run_id is None:
            labels |= {} if parent is None else {"mlflow.parentRunId": parent}
            created = client.create_run(_experiment_id(client, experiment, folder), tags=labels, run_name=name)
            run = Run(client, created.info.run_id)
        else:
            run = _reopened(client, run_id, labels)
        with _ended(run), _monitored(run.id, client.tracking_uri) if system_metrics else nullcontext():
            if run_id is None:
                run.params(params)
                run.json(config, "config.json")
            yield run


def find_run(experiment: str, tags: Mapping[str, str], *, root: Path) -> str | None:
    """Id of the newest run with all these tags, in whatever state, or None."""
    client, _ = _store(root)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    wanted = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
    runs = client.search_runs([found.experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"])
    return runs[0].info.run_id if runs else None


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
    with _one_line_if_lost():
        found = _stored(_reading(root), run_id)
    info, data = found.info, found.data
    started, ended = (
        None if moment is None else datetime.fromtimestamp(moment / 1000, UTC)
        for moment in (info.start_time, info.end_time)
    )
    assert started is not None
    return Logged(run_id, info.run_name, info.status, started, ended, data.params, data.tags, data.metrics)


def history(run_id: str, metric: str, *, root: Path) -> dict[int, float]:
    """The value of a metric at each step, rising, the last where there are several; empty where there is none."""
    with _one_line_if_lost():
        points = _reading(root).get_metric_history(run_id, metric)
    return {point.step: point.value for point in sorted(points, key=lambda point: (point.step, point.timestamp))}


def add_text(run_id: str, text: str, path: str, *, root: Path) -> None:
    """Write a text file into the artifacts of a run, which does not begin again. Raises ValueError as `logged`."""
    with _one_line_if_lost():
        client = _reading(root)
        _stored(client, run_id)
        client.log_text(run_id, text, path)


def _reading(root: Path) -> MlflowClient:
    """A client of a store that is there. Raises ValueError."""
    if not mlflow.is_tracking_uri_set() and not (root / "mlflow.db").exists():  # type: ignore[no-untyped-call]
        raise ValueError(f"{root / 'mlflow.db'}: no such store of runs; go to the folder of the training")
    return _store(root)[0]


def _store(root: Path) -> tuple[MlflowClient, Path | None]:
    """A client of the store, made where there is none, and the folder of its artifacts; None where a server chooses."""
    if mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        return MlflowClient(), None
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")  # takes seconds, so not under the lock
    root = root.resolve()
    folder = root / "mlruns"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as held:  # processes that make one database at once break it
        fcntl.flock(held, fcntl.LOCK_EX)
        return MlflowClient(f"sqlite:///{root / 'mlflow.db'}"), folder


def _experiment_id(client: MlflowClient, name: str, folder: Path | None) -> str:
    """Id of the experiment, made where there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if folder is None else (folder / name).as_uri()
        try:
            return client.create_experiment(name, artifact_location=location, tags=KIND)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    return found.experiment_id


def _stored(client: MlflowClient, run_id: str) -> Stored:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise ValueError(
            f"run {run_id}: not in {client.tracking_uri}; was the database moved, or is MLFLOW_TRACKING_URI another?"
        ) from error


def _reopened(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> Run:
    """The run, RUNNING again, without the marks of how it ended."""
    earlier = _stored(client, run_id)
    client.update_run(run_id, status="RUNNING")
    for mark in REASON_TAGS.values():
        if mark in earlier.data.tags:
            client.delete_tag(run_id, mark)
    run = Run(client, run_id, resumed=True)
    for name, value in tags.items():
        run.tag(name, value)
    return run


@contextmanager
def _one_line_if_lost() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise ValueError(f"MLflow: {reason}; is its store there, and MLFLOW_TRACKING_URI right?") from error


@contextmanager
def _ended(run: Run) -> Iterator[None]:
    try:
        yield
        run.flush()
    except Exception as error:
        run.end_as("FAILED", f"{type(error).__name__}: {error}")
        raise
    except BaseException:  # KeyboardInterrupt, SystemExit
        run.end_as("KILLED", "")
        raise
    finally:
        run.close()


@contextmanager
def _monitored(run_id: str, uri: str) -> Iterator[None]:
    """Logs meanwhile how busy processor, memory, disk, network and GPU are."""
    monitor: Any = SystemMetricsMonitor(run_id, tracking_uri=uri, resume_logging=True)  # type: ignore[no-untyped-call]
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def _git_tags() -> dict[str, str]:
    commit = git_commit()
    tags = {"git.commit": commit, "git.dirty": git_dirty()}
    return tags if commit == "unknown" else tags | {"mlflow.source.git.commit": commit}  # a column of the UI


def _accepted(name: str) -> str:
    """The name of a metric or image without the characters that MLflow refuses, such as those of a class name."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"
