"""An open MLflow run: what is logged becomes messages of its outbox."""

import io
import json
import math
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cellseg.codes import Array
from cellseg.outbox import Outbox

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        self._flushing = threading.Lock()
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
        with self._flushing:  # else another thread's later steps could arrive first, and a kill lose those between
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


def _milliseconds() -> int:
    """Now, as MLflow counts."""
    return int(time.time() * 1000)


def _accepted(name: str) -> str:
    """The name of a metric or image without the characters that MLflow refuses, such as those of a class name."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)
