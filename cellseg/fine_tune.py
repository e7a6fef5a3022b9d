"""Fine-tuning: what a training takes over from the checkpoint that it begins with, beside its weights."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from cellseg.backbones import norm_of
from cellseg.checkpoint import Checkpoint
from cellseg.config import RunConfig
from cellseg.config_fields import flat, replaced
from cellseg.dataset import DataSet
from cellseg.scale import relative_zoom

log = logging.getLogger(__name__)
TAKEN = ("model.", "dataset.color", "predict.short_side", "predict.long_side")
"""beginnings of the fields that say what the network is and what it is shown"""
OF_THE_DATA = ("model.num_cell_classes", "model.class_shares")


def begun_from(path: Path, source: Checkpoint, config: RunConfig, by_hand: Collection[str]) -> RunConfig:
    """The config with the network of a checkpoint, its weights those of the path, but for fields chosen by hand."""
    taken = flat(source.config) | {"model.norm": norm_of(source.config.model), "model.weights": str(path)}
    left = {*OF_THE_DATA, *by_hand}
    return replaced(config, {k: value for k, value in taken.items() if k.startswith(TAKEN) and k not in left})


def at_its_scale(source: Checkpoint, config: RunConfig, mpp: float | None) -> RunConfig:
    """The config with the zoom that shows images of mpp microns per pixel as large as the checkpoint's were.

    Left to the Plan where one of the scales is not known, and as it is where it was set by hand.
    """
    before = source.config.predict.zoom
    if config.predict.zoom is not None or before is None or mpp is None or source.plan.mpp is None:
        return config
    factor, warning = relative_zoom(mpp, source.plan.mpp)
    zoom = round(before * factor, 3)
    log.info("zoom %g, where the checkpoint has %g: %s", zoom, before, warning or "the scale is the same")
    return replace(config, predict=replace(config.predict, zoom=zoom))


def warn_of_peeking(source: Checkpoint, data: DataSet, held_back: Sequence[int]) -> None:
    """Log how many of the images held back the checkpoint's network was trained on, where it was on any.

    Of another data set, or of an earlier state of this one, the names alone can tell.
    """
    seen = {data.records[index].name for index in held_back} & set(source.plan.images)
    same = source.plan.digest == data.digest
    if seen:
        log.warning(
            "%d of %d images held back %s in the checkpoint's training: their figures flatter it%s",
            len(seen),
            len(held_back),
            "were" if same else "have the name of one",
            "" if same else ", if they are the same",
        )
