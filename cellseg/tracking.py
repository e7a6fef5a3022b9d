"""An MLflow run as a context manager, and the way to registered models: all that other modules use of MLflow.

Every call names its run: several may be open in one process.
"""

import getpass
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from cellseg.run_store import away, experiment_id, one_line_if_lost, opened, patiently

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cellseg.git import git_commit, git_dirty
from cellseg.machine_use import logged_use
from cellseg.open_run import REASON_TAGS, Run
from cellseg.outbox import UNSENT, Outbox
from cellseg.registry import Registered, model_file
from cellseg.run_log import stored
from cellseg.undisturbed import undisturbed

__all__ = ["Run", "find_run", "model_file", "register", "send_waiting", "start"]


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
    """Send what the runs begun in this folder could not send; how many runs.

    Raises ValueError as `start`, and where MLflow refuses what a run has left, after all others have sent theirs.
    """
    waiting = sorted((root / UNSENT).glob("*.jsonl"))
    refused: list[str] = []
    if waiting:
        with one_line_if_lost():
            client, _ = opened(root)
            for path in waiting:
                try:
                    Outbox(client, path.stem, root).send_waiting()
                except MlflowException as error:
                    if away(error):
                        raise
                    refused.append(f"{path.relative_to(root)}: {textwrap.shorten(str(error), 200, placeholder=' …')}")
    if refused:
        raise ValueError(
            f"{'; '.join(refused)}: MLflow refuses it, what other runs had left is sent; delete the file of a run that "
            "was deleted"
        )
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


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"
