"""Where the messages of a run wait while its store is away: a file, from which they arrive in order later."""

import logging
import math
import shutil
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cellseg.run_store import away, locked

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cellseg.run_messages import from_line, tell, to_line
from cellseg.whole_files import whole, write_whole

log = logging.getLogger(__name__)
UNSENT = Path("mlruns/unsent")
"""<run id>.jsonl, in the folder where the command was given"""
RETRY_SECONDS, RETRY_RATIO = 20.0, 10.0
"""between two attempts to reach a store that was away, and that many times the attempt's own time where that is more"""
FAILURES = (MlflowException, requests.RequestException)


class Outbox:
    """Sends a run's messages, from several threads; `waiting` is the file of those that could not be sent.

    Files that are to be sent wait as copies in `copies`, of each place among the artifacts the newest.
    """

    def __init__(self, client: MlflowClient, run_id: str, root: Path) -> None:
        self.waiting = root / UNSENT / f"{run_id}.jsonl"
        self.copies = root / UNSENT / run_id
        self._client = client
        self._run_id = run_id
        self._lock = threading.RLock()
        self._next_attempt = -math.inf
        self._warned = False

    def send(self, name: str, **values: Any) -> Any:
        """What is answered to a message; None where the store is away, so that it waits.

        Raises MlflowException where the store refuses it.
        """
        with self._lock:
            if not self.waiting.exists() or self._attempt(self.send_waiting):
                answers: list[Any] = []
                if self._attempt(lambda: answers.append(tell(self._client, self._run_id, name, values))):
                    return answers[0]
            self._keep(name, values)
            return None

    def send_waiting(self) -> int:
        """Send all that waits; how many messages that were. Raises what MLflow does; what was not sent waits on."""
        sent = 0
        with self._lock, locked(self.waiting.parent):
            if not self.waiting.exists():  # another process has sent them
                return 0
            lines = self.waiting.read_text(encoding="utf-8").splitlines(keepends=True)
            complete = [line for line in lines if line.endswith("\n")]  # a process was killed as it wrote the last one
            try:
                for line in complete:
                    self._tell_late(*from_line(line))
                    sent += 1
            finally:
                if sent == len(complete):
                    self.waiting.unlink()
                    shutil.rmtree(self.copies, ignore_errors=True)
                elif sent:
                    write_whole("".join(complete[sent:]), self.waiting)
        log.info("run %s: %d messages that waited have reached MLflow", self._run_id, sent)
        self._warned = False
        return sent

    def close(self) -> None:
        """Send what waits, or say how to send it later."""
        with self._lock:
            self._next_attempt = -math.inf
            if self.waiting.exists() and not self._attempt(self.send_waiting):
                log.warning(
                    "run %s: not all of it has reached MLflow; the rest waits in %s, and `cellseg track sync` sends it",
                    *(self._run_id, self.waiting),
                )

    def _attempt(self, action: Callable[[], object]) -> bool:
        """Whether the action came to its end; False also where the store was asked just before."""
        begun = time.monotonic()
        if begun < self._next_attempt:
            return False
        try:
            action()
        except FAILURES as error:
            if not away(error):
                raise
            now = time.monotonic()
            self._next_attempt = now + max(RETRY_SECONDS, RETRY_RATIO * (now - begun))
            if not self._warned:
                reason = textwrap.shorten(str(error), 200, placeholder=" …")
                log.warning("MLflow is away (%s); the work goes on, and what is to be logged waits", reason)
                self._warned = True
            return False
        return True

    def _tell_late(self, name: str, values: dict[str, Any]) -> None:
        try:
            tell(self._client, self._run_id, name, values)
        except FileNotFoundError as error:
            log.warning("run %s: a file that was to be sent has been deleted, and is left out: %s", self._run_id, error)

    def _keep(self, name: str, values: Mapping[str, Any]) -> None:
        self.waiting.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.waiting.parent):
            if name == "file":
                values = {**values, "path": str(self._copied(Path(values["path"]), values["folder"]).resolve())}
            with self.waiting.open("a", encoding="utf-8", newline="") as file:
                file.write(f"{to_line(name, values)}\n")

    def _copied(self, path: Path, folder: str | None) -> Path:
        copy = self.copies / (folder or "") / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with whole(copy) as partial:
            shutil.copyfile(path, partial)
        return copy
