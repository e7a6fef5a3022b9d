"""A network as an ONNX file, which also tells the names of its classes and how it was made."""

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cellseg.checkpoint import Checkpoint
from cellseg.config_fields import to_dict
from cellseg.onnx_network import OneImage

if TYPE_CHECKING:
    import onnx

FORMAT = 1
"""of the inputs, outputs and metadata of a file"""
OPSET = 18
IMAGE = "image"
OUTPUTS = ("boxes", "labels", "scores", "masks")
SETTINGS = (
    *("zoom", "short_side", "long_side", "tile", "overlap", "proposals", "score_threshold", "box_nms", "detections"),
    *("mask_threshold", "rescore", "mask_quality", "pq_threshold"),
)
"""fields of PredictConfig that the metadata tell"""


def to_onnx(network: OneImage, metadata: Mapping[str, str]) -> "onnx.ModelProto":
    """The network as an ONNX model of float32, its metadata in it. Raises ValueError where torch cannot write it."""
    network.eval()
    example = torch.zeros(96, 128, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            model = _translated(network, example)
    except Exception as error:  # of many kinds, deep inside torch
        reason = _cause(error)[:200]
        raise ValueError(f"export: torch {torch.__version__} cannot write this network as ONNX: {reason}") from error
    _name_axes(model)
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    return model


def metadata_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What a file tells about the network of a checkpoint: text as it is, all else as JSON."""
    config = checkpoint.config
    point = to_dict(config.predict) | {"overlap": config.predict.shared}
    values = {
        "format": FORMAT,
        "class_names": checkpoint.plan.class_names,
        "channel_order": "rgb",
        **{name: point[name] for name in SETTINGS},
        "color": config.dataset.color,
        "commit": checkpoint.commit,
        "epoch": checkpoint.epoch,
        "config": to_dict(config),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _translated(network: OneImage, example: Tensor) -> "onnx.ModelProto":
    height, width = (torch.export.Dim(name, min=1, max=2**20) for name in ("height", "width"))
    # with oneDNN, torch 2.11 would choose among convolutions by a size that it does not know
    with torch.backends.mkldnn.flags(enabled=False):
        program = torch.export.export(network, (example,), dynamic_shapes=({0: height, 1: width},))
        written = torch.onnx.export(
            program, input_names=[IMAGE], output_names=OUTPUTS, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert written is not None
    return written.model_proto


def _name_axes(model: "onnx.ModelProto") -> None:
    """Names instead of torch's symbols for the sizes of input and outputs."""
    del model.graph.value_info[:]  # sizes in between, in those symbols
    for value, names in [
        (model.graph.input[0], ("height", "width")),
        *((each, ("cells",)) for each in model.graph.output),
    ]:
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            dimension.dim_param = name


def with_threshold(model: "onnx.ModelProto", score_threshold: float) -> "onnx.ModelProto":
    """The same model with another score threshold."""
    from onnx import ModelProto, numpy_helper

    other = ModelProto()
    other.CopyFrom(model)
    (threshold,) = (each for each in other.graph.initializer if each.name == "score_threshold")
    threshold.CopyFrom(numpy_helper.from_array(np.array(score_threshold, np.float32), threshold.name))
    return other


def _cause(error: BaseException) -> str:
    """The first line of what an error began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
