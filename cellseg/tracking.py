"""An MLflow run as a context manager, and the way to registered models: all that other modules use of MLflow.

Every call names its run: several may be open in one process.
"""

import getpass
import io
import json
import math
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cellseg.run_store import experiment_id, one_line_if_lost, opened, patiently

from mlflow import MlflowClient

from cellseg.codes import Array
from cellseg.git import git_commit, git_dirty
from cellseg.machine_use import logged_use
from cellseg.outbox import UNSENT, Outbox
from cellseg.registry import Registered, model_file
from cellseg.run_log import stored
from cellseg.undisturbed import undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Run", "find_run", "model_file", "register", "send_waiting", "start"]
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 500
LONGEST_NOTE = 5000
FLUSH_SECONDS = 5.0
REASON_TAGS = {"KILLED": "pruned", "FAILED": "failure"}


class Run:
    """An open run; its metrics are buffered, everything else is logged at once, or later where the store is away."""

    def __init__(
        self, run_id: str, outbox: Outbox, last_steps: Mapping[str, int] | None = None, *, has_settings: bool = False
    ) -> None:
        self.id = run_id
        self.has_settings = has_settings
        self._outbox = outbox
        self._last_steps = last_steps or {}  # of each metric, that an earlier process logged
        self._lock = threading.Lock()
        self._buffer: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()
        self._end: tuple[str, str] = ("FINISHED", "")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log figures of a step, but for those that are not finite.

        Characters that MLflow refuses in a name become "_". In a resumed run, a step that was logged before the
        interruption is not logged again.
        """
        now = _milliseconds()
        for name, value in values.items():
            key = _accepted(name)
            if math.isfinite(value) and step > self._last_steps.get(key, -math.inf):
                with self._lock:
                    self._buffer.append((key, float(value), now, step))
        if len(self._buffer) >= METRICS_PER_BATCH or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the buffered metrics."""
        with self._lock:
            pending, self._buffer, self._flushed = self._buffer, [], time.monotonic()
        for first in range(0, len(pending), METRICS_PER_BATCH):
            self._outbox.send("metrics", points=pending[first : first + METRICS_PER_BATCH])

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, their text cut to what MLflow takes."""
        listed = [(name, str(value)[:LONGEST_PARAM]) for name, value in values.items()]
        for first in range(0, len(listed), PARAMS_PER_BATCH):
            self._outbox.send("params", params=dict(listed[first : first + PARAMS_PER_BATCH]))

    def tag(self, name: str, value: str) -> None:
        """Set a tag."""
        self._outbox.send("tag", key=name, value=value)

    def describe(self, text: str) -> None:
        """Set the description, in Markdown, cut to what MLflow takes."""
        self.tag("mlflow.note.content", text[:LONGEST_NOTE])

    def dataset(self, name: str, digest: str) -> None:
        """Name the data that the run is trained on, by which the UI groups and filters runs."""
        self._outbox.send("dataset", dataset=name, digest=digest, source=str(Path(name).resolve()))

    def json(self, content: Mapping[str, Any], path: str) -> None:
        """Log plain dicts, lists, numbers and strings as an artifact."""
        self._outbox.send("content", content=json.dumps(content, indent=2, default=str).encode(), path=path)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into a folder of the artifacts. Raises FileNotFoundError."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file to keep in run {self.id}")
        self._outbox.send("file", path=str(path.resolve()), folder=folder)

    def figure(self, figure: "Figure", path: str) -> None:
        """Draw a matplotlib figure into an artifact, all of its labels included."""
        file = io.BytesIO()
        figure.savefig(file, format=Path(path).suffix[1:], bbox_inches="tight")
        self._outbox.send("content", content=file.getvalue(), path=path)

    def image(self, image: Array, key: str, step: int) -> None:
        """Log an image (H, W, 3) uint8 of a step, under a key as metrics have them."""
        self._outbox.send("image", image=image, key=_accepted(key), step=step, timestamp=_milliseconds())

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
            self._outbox.send("end", status=status, timestamp=_milliseconds())
            self._outbox.close()


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

    With run_id, that run goes on: name, parent, params and config.json stay as they were. A store that goes away
    meanwhile gets what is logged once it answers again, at the latest by `send_waiting`. Raises ValueError where the
    store has no such run, refuses what is logged, or is away at the start; a study's store is waited for.
    """
    with one_line_if_lost():
        client, folder = opened(root)
        labels = {**_origin_tags(), **(tags or {})}
        if run_id is None:
            labels |= {} if parent is None else {"mlflow.parentRunId": parent}

            def create() -> str:
                identity = experiment_id(client, experiment, folder)
                return str(client.create_run(identity, tags=labels, run_name=name).info.run_id)

            created = create() if parent is None else patiently(create)
            run = Run(created, Outbox(client, created, root))
        else:
            run = _reopened(client, run_id, labels, root)
        with _ended(run), logged_use(run, client.tracking_uri) if system_metrics else nullcontext():
            if not run.has_settings:
                run.json(config, "config.json")
                run.params(params)
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


def register(run_id: str, ap50: float | None, *, root: Path) -> Registered | None:
    """The finished run as a version of the registered model; None where that waits for the store to answer again.

    Raises ValueError where the store refuses.
    """
    with one_line_if_lost():
        client, _ = opened(root)
        registered: Registered | None = Outbox(client, run_id, root).send("register", ap50=ap50, root=str(root))
        return registered


def send_waiting(root: Path) -> int:
    """Send what the runs begun in this folder could not send; how many runs. Raises ValueError as `start`."""
    waiting = sorted((root / UNSENT).glob("*.jsonl"))
    for path in waiting:
        with one_line_if_lost():
            Outbox(opened(root)[0], path.stem, root).send_waiting()
    return len(waiting)


def _reopened(client: MlflowClient, run_id: str, tags: Mapping[str, str], root: Path) -> Run:
    """The run, RUNNING again, without the marks of how it ended, and with all that was said of it before."""
    outbox = Outbox(client, run_id, root)
    if outbox.waiting.exists():
        outbox.send_waiting()
    earlier = stored(client, run_id)
    last_steps = {  # of the whole history: the "latest" value could be out of order
        name: max(metric.step for metric in client.get_metric_history(run_id, name)) for name in earlier.data.metrics
    }
    client.update_run(run_id, status="RUNNING")
    for mark in REASON_TAGS.values():
        if mark in earlier.data.tags:
            client.delete_tag(run_id, mark)
    run = Run(run_id, outbox, last_steps, has_settings=bool(earlier.data.params))
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


def _origin_tags() -> dict[str, str]:
    """Who runs what, of which commit; those of mlflow are columns of the UI."""
    tags = {"git.commit": git_commit(), "git.dirty": git_dirty()}
    tags |= {"mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL"}
    if tags["git.commit"] != "unknown":
        tags["mlflow.source.git.commit"] = tags["git.commit"]
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _milliseconds() -> int:
    """Now, as MLflow counts."""
    return int(time.time() * 1000)


def _accepted(name: str) -> str:
    """The name of a metric or image without the characters that MLflow refuses, such as those of a class name."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"
