"""Messages of a run to its store: plain values under a name, told to MLflow at once, or kept as a line of JSON."""

import base64
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cellseg.run_store import away

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from PIL import Image

from cellseg.codes import Array
from cellseg.registry import Registered, register


def tell(client: MlflowClient, run_id: str, name: str, values: Mapping[str, Any]) -> Any:
    """Tell MLflow; what is answered. Raises MlflowException or OSError."""
    return CALLS[name](client, run_id, **values)


def to_line(name: str, values: Mapping[str, Any]) -> str:
    """One line of JSON; bytes and images (H, W, 3) uint8 are in it as base64."""
    return json.dumps([name, values], default=_encoded)


def from_line(line: str) -> tuple[str, dict[str, Any]]:
    """Name and values of the line. Raises ValueError where it is none."""
    name, values = json.loads(line, object_hook=_decoded)
    return name, values


def _metrics(client: MlflowClient, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
    client.log_batch(run_id, metrics=[Metric(*point) for point in points])


def _params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])


def _tag(client: MlflowClient, run_id: str, key: str, value: str) -> None:
    client.set_tag(run_id, key, value)


def _dataset(client: MlflowClient, run_id: str, dataset: str, digest: str, source: str) -> None:
    inputs = [DatasetInput(Dataset(dataset, digest, "local", source), [InputTag("mlflow.data.context", "training")])]
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException as error:  # another process was faster to make it
        if away(error):
            raise
        client.log_inputs(run_id, inputs)


def _content(client: MlflowClient, run_id: str, content: bytes, path: str) -> None:
    place = PurePosixPath(path)
    with tempfile.TemporaryDirectory(prefix="cellseg-") as passing:
        file = Path(passing) / place.name
        file.write_bytes(content)
        client.log_artifact(run_id, str(file), str(place.parent) if place.parent.name else None)


def _file(client: MlflowClient, run_id: str, path: str, folder: str | None) -> None:
    client.log_artifact(run_id, path, folder)


def _image(client: MlflowClient, run_id: str, image: Array, key: str, step: int, timestamp: int) -> None:
    client.log_image(run_id, image, key=key, step=step, timestamp=timestamp)


def _end(client: MlflowClient, run_id: str, status: str, timestamp: int) -> None:
    client.set_terminated(run_id, status, timestamp)


def _register(_client: MlflowClient, run_id: str, ap50: float | None, root: str) -> Registered:
    return register(run_id, ap50, root=Path(root))


CALLS: dict[str, Callable[..., Any]] = {
    "metrics": _metrics,
    "params": _params,
    "tag": _tag,
    "dataset": _dataset,
    "content": _content,
    "file": _file,
    "image": _image,
    "end": _end,
    "register": _register,
}


def _encoded(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    file = io.BytesIO()
    Image.fromarray(value).save(file, "PNG")
    return {"png": base64.b64encode(file.getvalue()).decode()}


def _decoded(value: dict[str, Any]) -> Any:
    if value.keys() == {"base64"}:
        return base64.b64decode(value["base64"])
    if value.keys() == {"png"}:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(value["png"]))))
    return value
