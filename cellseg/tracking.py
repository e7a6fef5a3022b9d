"""An MLflow run as a context manager, and the way to registered models: all that other modules use of MLflow.

Every call names its run: several may be open in one process.
"""

import getpass
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cellseg.run_store import experiment_id, one_line_if_lost, opened

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from cellseg.codes import Array
from cellseg.distributed import undisturbed
from cellseg.git import git_commit, git_dirty
from cellseg.registry import model_file, register
from cellseg.run_log import stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Run", "find_run", "model_file", "register", "start"]
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 500
LONGEST_NOTE = 5000
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

    def describe(self, text: str) -> None:
        """Set the description, in Markdown, cut to what MLflow takes."""
        self.tag("mlflow.note.content", text[:LONGEST_NOTE])

    def dataset(self, name: str, digest: str) -> None:
        """Name the data that the run is trained on, by which the UI groups and filters runs."""
        used = Dataset(name, digest, "local", str(Path(name).resolve()))
        inputs = [DatasetInput(used, [InputTag("mlflow.data.context", "training")])]
        try:
            self._client.log_inputs(self.id, inputs)
        except MlflowException:  # another process was faster to make it
            self._client.log_inputs(self.id, inputs)

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
    with one_line_if_lost():
        client, folder = opened(root)
        labels = {**_origin_tags(), **(tags or {})}
        if run_id is None:
            labels |= {} if parent is None else {"mlflow.parentRunId": parent}
            created = client.create_run(experiment_id(client, experiment, folder), tags=labels, run_name=name)
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
    client, _ = opened(root)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    wanted = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
    runs = client.search_runs([found.experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"])
    return runs[0].info.run_id if runs else None


def _reopened(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> Run:
    """The run, RUNNING again, without the marks of how it ended."""
    earlier = stored(client, run_id)
    client.update_run(run_id, status="RUNNING")
    for mark in REASON_TAGS.values():
        if mark in earlier.data.tags:
            client.delete_tag(run_id, mark)
    run = Run(client, run_id, resumed=True)
    for name, value in tags.items():
        run.tag(name, value)
    return run


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
        with undisturbed():
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


def _origin_tags() -> dict[str, str]:
    """Who runs what, of which commit; those of mlflow are columns of the UI."""
    tags = {"git.commit": git_commit(), "git.dirty": git_dirty()}
    tags |= {"mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}
    if tags["git.commit"] != "unknown":
        tags["mlflow.source.git.commit"] = tags["git.commit"]
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _accepted(name: str) -> str:
    """The name of a metric or image without the characters that MLflow refuses, such as those of a class name."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"
