"""The space of a study: what is searched, between which bounds, and which trials come first.

To search another knob, suggest it in `suggest` and give the config field that it sets.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import optuna

from cellseg import anchors
from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS, RunConfig
from cellseg.config_fields import flat
from cellseg.experiment import Prepared
from cellseg.fingerprint import Fingerprint, Plan, network_boxes
from cellseg.recipes import REFERENCE_ANCHORS, REFERENCE_RATIOS

Kind = Literal["card", "wide"]
SCALES = (1.15, 2.2)
RATIOS = (1.0, 3.0)
PER_LEVEL = (1, 3)
WIDE = {
    "train.weight_decay": (1e-5, 1e-1, True),
    "predict.box_nms": (0.3, 0.7, False),
    "model.rpn_nms": (0.5, 0.9, False),
    "model.roi_positive_fraction": (0.25, 0.75, False),
}
"""least, greatest, whether on a logarithmic scale"""
ZOOM = 1.5
"""the Plan's zoom is multiplied or divided by at most that"""
LONGEST_WARMUP = 0.3
"""share of a training; no trial is judged before it is over"""
SGD_OVER_ADAMW = 20
"""learning rates of SGD for one of AdamW, about"""
DRAWS = 64
"""of the space, to find out which parameters it has"""


@dataclass(frozen=True)
class First:
    """A trial that comes before the sampler: its parameters, and the anchors that they may not be able to express."""

    name: str
    parameters: dict[str, float]
    anchor_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]


def with_fitted_anchors(whole: Prepared, cells: Fingerprint) -> Prepared:
    """The same with fitted anchors in its Plan, whatever set the config has: the space lies around them."""
    model = whole.config.model
    sizes, ratios = anchors.fit(network_boxes(cells, whole.config.predict), model.levels, model.sizes_per_level)
    return replace(whole, plan=replace(whole.plan, anchor_sizes=sizes, aspect_ratios=ratios))


def suggest(trial: optuna.Trial, config: RunConfig, plan: Plan, kind: Kind) -> dict[str, Any]:
    """Dotted config fields of a trial.

    card: anchor sizes (the smallest in image pixels, the step, how many a level), ratio span, learning rate, warm-up.
    wide: also optimiser, weight decay, zoom and with it the tiles' overlap, RPN and box NMS, positive fraction. Bounds
    lie around the Plan and the recipe. A first trial brings its exact anchors as user attributes; its parameters then
    only place it in the space.
    """
    fields: dict[str, Any] = {}
    optimizer: str = config.train.optimizer
    zoom = plan.zoom
    if kind == "wide":
        optimizer = trial.suggest_categorical("optimizer", ["adamw", "sgd"])
        fields = {"train.optimizer": optimizer}
    if zooms(config, kind):
        zoom = trial.suggest_float("zoom", plan.zoom / ZOOM, plan.zoom * ZOOM)
        fields |= {"predict.zoom": zoom, "predict.overlap": _overlap(config, zoom / plan.zoom)}
    if kind == "wide":
        for field, (low, high, log) in WIDE.items():
            fields[field] = trial.suggest_float(field.split(".")[1], low, high, log=log)
    fitted = plan.anchor_sizes[0] / plan.zoom
    base = trial.suggest_float("anchor_base", fitted / 2, fitted * 2, log=True) * zoom
    scale = trial.suggest_float("anchor_scale", *SCALES)
    per_level = trial.suggest_int("anchors_per_level", *PER_LEVEL)
    ratio = trial.suggest_float("ratio_max", *RATIOS)
    given = trial.user_attrs
    sizes = given.get("anchor_sizes") or anchors.geometric(base, scale, config.model.levels, per_level)
    fields["model.anchor_sizes"] = list(sizes)
    fields["model.aspect_ratios"] = list(given.get("aspect_ratios") or anchors.symmetric_ratios(ratio))
    name, rate = _learning_rate(optimizer, config)
    fields["train.learning_rate"] = trial.suggest_float(name, rate / 5, rate * 5, log=True)
    fields["train.warmup_fraction"] = trial.suggest_float("warmup_fraction", 0, LONGEST_WARMUP)
    return fields


def zooms(config: RunConfig, kind: Kind) -> bool:
    """Whether zooms are searched: in the wide space, unless every image is brought to a short side."""
    return kind == "wide" and not config.predict.short_side


def at_least_zoom(config: RunConfig, plan: Plan, kind: Kind) -> RunConfig:
    """The config at the least zoom of the space, at which a view takes the most of an image."""
    if not zooms(config, kind):
        return config
    return replace(config, predict=replace(config.predict, zoom=plan.zoom / ZOOM))


def first_trials(config: RunConfig, plan: Plan, kind: Kind) -> Sequence[First]:
    """The fitted anchors, torchvision's default, the reference's, and the config's own; all else is the recipe's."""
    levels = config.model.levels
    sets = {
        "fitted": (plan.anchor_sizes, plan.aspect_ratios),
        "torchvision": (TORCHVISION_ANCHORS[:levels], TORCHVISION_RATIOS),  # one size a level, fewer levels fewer sizes
        "reference": (REFERENCE_ANCHORS[:levels], REFERENCE_RATIOS),
    }
    own = (config.model.anchor_sizes or plan.anchor_sizes, config.model.aspect_ratios or plan.aspect_ratios)
    if own not in sets.values():
        sets["own"] = own
    return [First(name, _nearest(*each, config, plan, kind), *each) for name, each in sets.items()]


def parameters_of(config: RunConfig, plan: Plan, kind: Kind) -> dict[str, str]:
    """Every parameter of the space and its bounds, as text that two versions of the space can be compared by."""
    found: dict[str, str] = {}
    for trial, _ in _draws(config, plan, kind):
        found |= {name: str(bounds) for name, bounds in trial.distributions.items()}
    return dict(sorted(found.items()))


def digest_of(config: RunConfig, plan: Plan, kind: Kind) -> str:
    """Of what `suggest` makes of some parameters: two versions may have the same ones and set other fields by them."""
    fields = [{name: str(_six_digits(value)) for name, value in made.items()} for _, made in _draws(config, plan, kind)]
    return blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=4).hexdigest()


def _draws(config: RunConfig, plan: Plan, kind: Kind) -> Iterator[tuple[optuna.Trial, dict[str, Any]]]:
    """Some trials, always the same ones, and the fields that each sets."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(DRAWS):
        trial = study.ask()
        yield trial, suggest(trial, config, plan, kind)


def _six_digits(value: Any) -> Any:
    """Machines may differ in the last one of sixteen."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _overlap(config: RunConfig, factor: float) -> int:
    """An overlap in which the largest cells fit as they fit into the config's, at a zoom so many times its own."""
    overlap, tile = config.predict.shared, config.predict.tile
    scaled = math.ceil(overlap * factor)
    return min(scaled, max(overlap, tile // 2)) if tile else scaled


def _learning_rate(optimizer: str, config: RunConfig) -> tuple[str, float]:
    """The parameter's name, one an optimiser since their rates differ in size, and the middle of its bounds."""
    if optimizer == config.train.optimizer:
        return "learning_rate", config.train.learning_rate
    factor = SGD_OVER_ADAMW if optimizer == "sgd" else 1 / SGD_OVER_ADAMW
    return f"learning_rate_{optimizer}", config.train.learning_rate * factor


def _nearest(
    sizes: Sequence[float], ratios: Sequence[float], config: RunConfig, plan: Plan, kind: Kind
) -> dict[str, Any]:
    """Where a set lies in the space; its scale is the mean step between its sizes."""
    fitted = plan.anchor_sizes[0] / plan.zoom
    step = (sizes[-1] / sizes[0]) ** (1 / max(len(sizes) - 1, 1))
    card = {
        "anchor_base": float(np.clip(sizes[0] / plan.zoom, fitted / 2, fitted * 2)),
        "anchor_scale": float(np.clip(step, *SCALES)),
        "anchors_per_level": int(np.clip(len(sizes) // config.model.levels, *PER_LEVEL)),
        "ratio_max": float(np.clip(max(*ratios, 1 / min(ratios)), *RATIOS)),
        "learning_rate": config.train.learning_rate,
        "warmup_fraction": float(np.clip(config.train.warmup_fraction, 0, LONGEST_WARMUP)),
    }
    if kind == "card":
        return card
    recipe = flat(config)
    wide = {field.split(".")[1]: float(np.clip(recipe[field], low, high)) for field, (low, high, _) in WIDE.items()}
    zoom = {"zoom": plan.zoom} if zooms(config, kind) else {}
    return card | wide | zoom | {"optimizer": config.train.optimizer}
