"""Recipes of the accuracy benchmark by name: `best+mask56-oversample` is `best` with one thing more and one less."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cellseg.config import RunConfig
from cellseg.config_fields import replaced
from cellseg.recipes import RECIPES

Fields = Mapping[str, Any]
GPU_WORKERS = 4
"""processes that load images beside a GPU, of ours and of the opponents"""

INGREDIENTS: dict[str, Fields] = {
    "adjusted": {"model.logit_adjustment": 0.5},
    "batch8": {"train.batch": 8},
    "blur-noise": {"augment.blur": 0.1, "augment.noise": 0.1},
    "cascade": {"model.box_stages": 3},
    "copy-paste": {"augment.copy_paste": 6},
    "crop256": {"augment.crop": 256},
    "crop512": {"augment.crop": 512},
    "extra-level": {"model.extra_level": True},
    "four-stages": {"model.stages": 4},
    "gpu": {"dataset.workers": GPU_WORKERS},
    "mask56": {"model.mask_size": 56},
    "mask-quality": {"model.mask_quality": True},
    "rare-windows": {"augment.rare_windows": 0.5},
    "rate2e-3": {"train.learning_rate": 2e-3},
    "rate5e-4": {"train.learning_rate": 5e-4, "train.weight_decay": 1e-4},
    "resnet18": {"model.backbone": "resnet18"},
    "roi128": {"model.roi_batch": 128},
    "roi256": {"model.roi_batch": 256},
    "scratch": {"model.weights": "none"},
    "whole-cells": {"augment.least_share": 0.3},
    "wide": {"model.fpn_channels": 128, "model.box_head": 256, "model.mask_channels": [64, 64]},
}
"""what `+name` sets"""
OFF: dict[str, Fields] = {
    "bf16": {"train.amp": False},
    "channels-last": {"train.channels_last": False},
    "clip": {"train.clip_norm": 0.0},
    "color-jitter": {"augment.color_jitter": 0.0},
    "ema": {"train.ema_decay": 0.0},
    "flips": {"augment.flips": False, "augment.turns": False},
    "oversample": {"train.oversample": False},
    "plan-overlap": {"predict.overlap": 128},
    "rescore": {"predict.rescore": False},
    "stain-jitter": {"augment.stain_jitter": 0.0},
    "warmup": {"train.warmup_fraction": 0.0},
    "zoom-jitter": {"augment.zoom_jitter": 1.0},
}
"""what `-name` sets: the same recipe without it"""
SHARED: Fields = {
    "dataset.grouped_split": True,
    "dataset.validation_fraction": 0.2,
    "dataset.subset": 1.0,
    "train.patience": 0,
}
"""of all rows: they train on the same images, to the end of their schedules"""


def config_of(name: str) -> RunConfig:
    """The config that a name such as `demo+mask56-ema` stands for. Raises ValueError for one that is not known."""
    recipe, changes = _parts(name)
    return replaced(RECIPES[recipe](), {**changes, **SHARED})


def changes_of(name: str) -> Fields:
    """What the `+` and `-` of such a name set. Raises ValueError for one that is not known."""
    return _parts(name)[1]


def _parts(name: str) -> tuple[str, Fields]:
    """The recipe of a name, and the fields that its changes set; of two that set the same, the later one has it."""
    changes = rf"(?:\+(?:{_any_of(INGREDIENTS)})|-(?:{_any_of(OFF)}))"
    found = re.fullmatch(rf"({_any_of(RECIPES)})({changes}*)", name)
    if not found:
        raise ValueError(
            f"recipe {name}: expected one of {', '.join(RECIPES)}, then +{', +'.join(INGREDIENTS)} or "
            f"-{', -'.join(OFF)}, in any number"
        )
    fields: dict[str, Any] = {}
    for change in re.findall(changes, found[2]):
        fields |= (INGREDIENTS if change[0] == "+" else OFF)[change[1:]]
    return found[1], fields


def _any_of(names: Iterable[str]) -> str:
    """A pattern of the names, the longest first: `copy-paste` is not `copy` without `paste`."""
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
