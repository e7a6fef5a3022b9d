"""The space of a study: what is searched, between which bounds, and which trials come first.

To search another knob, suggest it in `suggest` and give the config field that it sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from cellseg import anchors
from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS, RunConfig
from cellseg.fingerprint import Plan
from cellseg.recipes import REFERENCE_ANCHORS, REFERENCE_RATIOS

SCALES = (1.15, 2.2)
RATIOS = (1.0, 3.0)
LONGEST_WARMUP = 0.3
"""share of a training; no trial is judged before it is over"""


@dataclass(frozen=True)
class First:
    """A trial that comes before the sampler: its parameters, and the anchors that they may not be able to express."""

    name: str
    parameters: dict[str, float]
    anchor_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]


def suggest(trial: optuna.Trial, config: RunConfig, plan: Plan) -> dict[str, Any]:
    """Dotted config fields of a trial: anchor base, scale and ratio span, learning rate and warm-up fraction.

    Anchors lie around the fitted set, the learning rate around the recipe's. A first trial brings its exact anchors as
    user attributes; its parameters then only place it in the space.
    """
    fitted, rate = plan.anchor_sizes[0], config.train.learning_rate
    base = trial.suggest_float("anchor_base", fitted / 2, fitted * 2, log=True)
    scale = trial.suggest_float("anchor_scale", *SCALES)
    ratio = trial.suggest_float("ratio_max", *RATIOS)
    given, per_level = trial.user_attrs, config.model.sizes_per_level
    sizes = given.get("anchor_sizes") or anchors.geometric(base, scale, config.model.levels, per_level)
    return {
        "model.anchor_sizes": list(sizes),
        "model.aspect_ratios": list(given.get("aspect_ratios") or anchors.symmetric_ratios(ratio)),
        "train.learning_rate": trial.suggest_float("learning_rate", rate / 5, rate * 5, log=True),
        "train.warmup_fraction": trial.suggest_float("warmup_fraction", 0, LONGEST_WARMUP),
    }


def first_trials(config: RunConfig, plan: Plan) -> Sequence[First]:
    """The fitted anchors, torchvision's default and the reference's, each at the recipe's learning rate and warm-up."""
    levels = config.model.levels
    sets = (
        ("fitted", plan.anchor_sizes, plan.aspect_ratios),
        ("torchvision", TORCHVISION_ANCHORS[:levels], TORCHVISION_RATIOS),  # one size a level, fewer levels fewer sizes
        ("reference", REFERENCE_ANCHORS[:levels], REFERENCE_RATIOS),
    )
    return [First(name, _nearest(sizes, ratios, config, plan), sizes, ratios) for name, sizes, ratios in sets]


def _nearest(sizes: Sequence[float], ratios: Sequence[float], config: RunConfig, plan: Plan) -> dict[str, float]:
    """Where a set lies in the space; its scale is the mean step between its sizes."""
    fitted = plan.anchor_sizes[0]
    step = (sizes[-1] / sizes[0]) ** (1 / max(len(sizes) - 1, 1))
    return {
        "anchor_base": float(np.clip(sizes[0], fitted / 2, fitted * 2)),
        "anchor_scale": float(np.clip(step, *SCALES)),
        "ratio_max": float(np.clip(max(*ratios, 1 / min(ratios)), *RATIOS)),
        "learning_rate": config.train.learning_rate,
        "warmup_fraction": config.train.warmup_fraction,
    }
