"""Pretrained weights: where they lie, and which of them fit a network."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights, MaskRCNN_ResNet50_FPN_Weights

from cellseg.config import ModelConfig

COCO_URLS = {
    "resnet50": MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url,
    "resnet50_v2": MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.url,
}


def load_pretrained(model: nn.Module, config: ModelConfig) -> str:
    """Load what fits of the weights that config names; the sentence tells what was loaded and what was not.

    Raises ValueError where nothing fits, FileNotFoundError where the file can neither be found nor fetched.
    """
    if config.weights == "none":
        return "none; all layers initialised at random"
    state = _prefixed(_state_of(config), model)
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ValueError(f"--weights {config.weights}: none of its {len(state)} tensors fits {config.backbone}")
    model.load_state_dict(fitting, strict=False)
    fresh = sorted({name.rsplit(".", 1)[0] for name in own if name not in fitting and "num_batches" not in name})
    rest = ", ".join(fresh) or "none"
    return f"{config.weights}: {len(fitting)} of {len(own)} tensors loaded; initialised at random: {rest}"


def _state_of(config: ModelConfig) -> Mapping[str, Tensor]:
    if config.weights == "coco":
        if config.backbone not in COCO_URLS:
            raise ValueError(
                f"--weights coco: torchvision has them for {', '.join(COCO_URLS)}, not for {config.backbone}; "
                f"use --weights imagenet"
            )
        return _fetched(COCO_URLS[config.backbone])
    if config.weights == "imagenet":
        classifier = config.backbone.removesuffix("_v2")
        return _fetched(get_model_weights(classifier).IMAGENET1K_V1.url)
    path = Path(config.weights)
    if not path.is_file():
        raise FileNotFoundError(f"--weights {path}: no such file; expected coco, imagenet, none or a state_dict file")
    return read_state(path)


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The state_dict in a file: bare, or under "model" as in our checkpoints. Pickled objects are refused."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"{path}: expected a file of tensors saved by torch.save, got: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected a state_dict of tensors, or one under the key 'model'")
    return state


def _fetched(url: str) -> Mapping[str, Tensor]:
    """The state_dict behind an address, from torch's cache where it is there."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if cached.is_file():
        return read_state(cached)
    try:
        state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (OSError, RuntimeError) as error:  # RuntimeError: what came has another hash
        raise FileNotFoundError(
            f"weights: could not fetch {url} ({error}); fetch it where there is a network and put it at {cached}, "
            f"or train from scratch with --weights none"
        ) from error
    return state


def _prefixed(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Names as the network has them: a classifier's layers lie in backbone.body."""
    own = model.state_dict()
    if any(name in own for name in state):
        return state
    return {f"backbone.body.{name.removeprefix('features.')}": value for name, value in state.items()}
