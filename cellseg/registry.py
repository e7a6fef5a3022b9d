"""The registered model `cellseg`: a version for each final training, the best one under the alias `best`.

A version is the checkpoint among its run's files: tensors and their config, never a pickle. `best` is the version
with the highest AP50 on held-back images, among those trained on the same data as the version that was registered
last: AP50 on other data says nothing. One that was trained on all images has no AP50 and comes after all that have one;
of equals the newest is the best.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

from cellseg.run_store import exists, locked, opened

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from cellseg.wording import first_line

MODEL = "cellseg"
BEST = "best"
CHECKPOINTS, FILE = "checkpoints", "best.pt"
"""folder and name of a training's best network among the files of its run"""
ABOUT = (
    "Networks of cellseg: the checkpoint of each final training, a state_dict with its config. "
    f"`{BEST}` has the highest AP50 on held-back images of the data that was trained on last."
)


class Registered(NamedTuple):
    """A version of the registered model."""

    version: int
    best: bool
    """whether it has the alias now"""


def register(run_id: str, ap50: float | None, *, root: Path) -> Registered:
    """Make the checkpoint of a finished run a version, once however often it is called, and move `best`.

    ap50 is that of held-back images, None where there were none. Raises MlflowException where the store refuses.
    """
    client, folder = opened(root)
    run = client.get_run(run_id)
    with locked(folder):
        _make_model(client)
        version = _version_of(client, run, ap50)
        client.set_tag(run_id, "registered", f"{MODEL}/{version}")  # a column of the UI's lists
        best = _move_best(client, run.data.tags["digest"])
    return Registered(version, version == best)


@contextmanager
def model_file(uri: str, root: Path) -> Iterator[Path]:
    """The checkpoint of `models:/cellseg@best`, `models:/cellseg/3`, `runs:/<run id>` or `runs:/<run id>/<path>`.

    It is the store's own file, or fetched from a server into a folder that is deleted with the block. Raises ValueError
    where there is none.
    """
    if not exists(root):
        raise ValueError(f"{uri}: no mlflow.db in {root.resolve()}; go where it is, or set MLFLOW_TRACKING_URI")
    client, _ = opened(root)
    with one_line_if_not_found(uri):
        source = _source(client, uri)
    own = urlsplit(source).scheme in ("", "file")
    with nullcontext() if own else TemporaryDirectory(prefix="cellseg-") as folder:
        with one_line_if_not_found(uri):
            path = Path(download_artifacts(source, dst_path=folder, tracking_uri=client.tracking_uri))
        if not path.is_file():
            raise ValueError(f"{uri}: expected a file, found the folder {path}; name a file in it")
        yield path


@contextmanager
def one_line_if_not_found(uri: str) -> Iterator[None]:
    """Raises ValueError, one line, where the store has nothing at this address."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise ValueError(f"{uri}: not found ({first_line(error, 200)}); `mlflow ui` shows what is there") from error


def _source(client: MlflowClient, uri: str) -> str:
    """Where the file of an address lies."""
    if found := re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", uri):
        name, alias, number = found.groups()
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        return f"{version.source}/{FILE}"
    if found := re.fullmatch(r"runs:/(\w+)(?:/(.+))?", uri):
        run_id, path = found.groups()
        return f"{client.get_run(run_id).info.artifact_uri}/{path or f'{CHECKPOINTS}/{FILE}'}"
    raise ValueError(f"{uri}: expected models:/{MODEL}@{BEST}, models:/{MODEL}/1 or runs:/RUN_ID")


def _make_model(client: MlflowClient) -> None:
    """The registered model, made where there is none."""
    try:
        client.create_registered_model(MODEL, description=ABOUT)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _version_of(client: MlflowClient, run: Run, ap50: float | None) -> int:
    """The version of a run, made where there is none."""
    run_id = run.info.run_id
    for version in client.search_model_versions(f"name = '{MODEL}' and run_id = '{run_id}'"):
        return int(version.version)
    tags = {name: run.data.tags[name] for name in ("recipe", "data", "digest")}
    judged = "no AP50, as it was trained on all images"
    if ap50 is not None:
        tags["AP50"] = f"{ap50:.4f}"
        judged = f"AP50 {ap50:.3f} on held-back images"
    about = f"{run.info.run_name}: {judged} of {tags['data']} (digest {tags['digest']}); run {run_id}"
    source = f"{run.info.artifact_uri}/{CHECKPOINTS}"
    return int(client.create_model_version(MODEL, source, run_id, tags=tags, description=about).version)


def _move_best(client: MlflowClient, digest: str) -> int:
    """The best version, which has the alias now."""
    while (held := _holder(client)) != (best := _best(client, digest)):  # another may set it meanwhile
        try:
            client.set_registered_model_alias(MODEL, BEST, str(best))
        except MlflowException:
            if _holder(client) == held:  # else another set it at the same moment: a server refuses all but one
                raise
    return best


def _best(client: MlflowClient, digest: str) -> int:
    """The version with the highest AP50 on the data with this digest."""
    versions = client.search_model_versions(f"name = '{MODEL}' and tags.digest = '{digest}'")
    return max((float(each.tags.get("AP50", -1)), int(each.version)) for each in versions)[1]


def _holder(client: MlflowClient) -> int | None:
    """The version that has the alias."""
    version = client.get_registered_model(MODEL).aliases.get(BEST)
    return None if version is None else int(version)
