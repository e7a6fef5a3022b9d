"""Pretrained weights: where they lie, and which of them fit a network."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights, MaskRCNN_ResNet50_FPN_Weights

from cellseg.class_rows import shared_labels, with_classes
from cellseg.config import ModelConfig
from cellseg.tensor_files import read_tensors

COCO_URLS = {
    "resnet50": MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url,
    "resnet50_v2": MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.url,
}


class Weights(NamedTuple):
    """What a file holds."""

    state: Mapping[str, Tensor]
    class_names: tuple[str, ...] = ()
    """of the classes 1..C that its heads know; empty where it does not tell"""


def load_pretrained(model: nn.Module, config: ModelConfig, class_names: Sequence[str] = ()) -> str:
    """Load what fits of the weights that config names; the sentence tells what was loaded and what was not.

    From a file that tells its classes, a network of these classes takes over the rows of those that both have. Raises
    ValueError where nothing fits, or not all of the backbone, FileNotFoundError where the file can neither be found
    nor fetched.
    """
    if config.weights == "none":
        return "none; all layers initialised at random"
    weights, own = _weights_of(config), model.state_dict()
    state = _named_as_here(weights.state, own)
    named = bool(weights.class_names and class_names)
    if named:
        state = with_classes(state, own, weights.class_names, class_names)
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ValueError(f"--weights {config.weights}: none of its {len(state)} tensors fits {config.backbone}")
    _refuse_part_of_a_backbone(fitting, own, config)
    _refuse_lost_statistics(state, own, config)
    model.load_state_dict(fitting, strict=False)
    fresh = sorted({name.rsplit(".", 1)[0] for name in own if name not in fitting and "num_batches" not in name})
    rest = ", ".join(fresh) or "none"
    said = f"{config.weights}: {len(fitting)} of {len(own)} tensors loaded; initialised at random: {rest}"
    return f"{said}; {_taken_over(weights.class_names, class_names)}" if named else said


def _taken_over(before: Sequence[str], now: Sequence[str]) -> str:
    """Which classes are taken over, and which begin anew."""
    shared = shared_labels(before, now)
    taken = [name for label, name in enumerate(now, 1) if label in shared]
    anew = [name for name in now if name not in taken]
    return f"classes taken over: {', '.join(taken) or 'none'}; begun anew: {', '.join(anew) or 'none'}"


def _refuse_part_of_a_backbone(fitting: Mapping[str, Tensor], own: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Half a network at random would train, and be no good."""
    body = [name for name in own if name.startswith("backbone.body.") and "num_batches" not in name]
    found = sum(name in fitting for name in body)
    if found < len(body):
        raise ValueError(
            f"--weights {config.weights}: {found} of {len(body)} tensors of the backbone fit {config.backbone}; give "
            f"the --model.backbone, --model.stages and --model.norm that they were trained with, or begin from a "
            f"checkpoint with --fine-tune, which takes them over"
        )


def _refuse_lost_statistics(state: Mapping[str, Tensor], own: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Scales that were trained behind batch statistics are of no use to a layer that has none."""
    layers = [name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")]
    if any(f"{layer}.weight" in own and f"{layer}.running_mean" not in own for layer in layers):
        raise ValueError(
            f"--weights {config.weights}: its layers have batch normalisation, those of --model.norm {config.norm} "
            f"have not; give --model.norm auto, batch or frozen, or --weights none"
        )


def _weights_of(config: ModelConfig) -> Weights:
    if config.weights == "coco":
        if config.backbone not in COCO_URLS:
            raise ValueError(
                f"--weights coco: torchvision has them for {', '.join(COCO_URLS)}, not for {config.backbone}; "
                f"use --weights imagenet"
            )
        return Weights(_fetched(COCO_URLS[config.backbone]))
    if config.weights == "imagenet":
        classifier = config.backbone.removesuffix("_v2")
        return Weights(_fetched(get_model_weights(classifier).IMAGENET1K_V1.url))
    require_weights(config)
    return read_weights(Path(config.weights))


def require_weights(config: ModelConfig) -> None:
    """Raise FileNotFoundError where the config names a file of weights that is not there."""
    if config.weights not in ("coco", "imagenet", "none") and not Path(config.weights).is_file():
        raise FileNotFoundError(
            f"--weights {config.weights}: no such file; expected coco, imagenet, none or a state_dict file"
        )


def read_weights(path: Path) -> Weights:
    """The state_dict in a file: bare, or under "model" as in our checkpoints. Pickled objects are refused."""
    content = read_tensors(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: expected a state_dict of tensors, or one under the key 'model'")
    plan: Mapping[str, Any] = content.get("plan", {})
    return Weights(state, tuple(plan.get("class_names", ())))


def _fetched(url: str) -> Mapping[str, Tensor]:
    """The state_dict behind an address, from torch's cache where it is there."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if cached.is_file():
        return read_weights(cached).state
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


def _named_as_here(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Names as the network with the state `own` has them: a classifier's layers lie in backbone.body."""
    if any(name in own for name in state):
        return {_renamed(name): value for name, value in state.items()}
    return {f"backbone.body.{name.removeprefix('features.')}": value for name, value in state.items()}


def _renamed(name: str) -> str:
    """The name that torchvision gives a layer since 0.13; the first COCO weights have those of before.

    >>> _renamed("backbone.fpn.inner_blocks.2.weight"), _renamed("roi_heads.mask_head.mask_fcn1.bias")
    ('backbone.fpn.inner_blocks.2.0.weight', 'roi_heads.mask_head.0.0.bias')
    """
    name = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
    name = re.sub(r"(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)
    return re.sub(r"mask_fcn(\d+)\.(weight|bias)$", lambda found: f"{int(found[1]) - 1}.0.{found[2]}", name)
