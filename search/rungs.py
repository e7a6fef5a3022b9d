"""What a study trains on: its trials a share of the data for a few epochs, its finals all of it in full."""

from dataclasses import dataclass, replace
from pathlib import Path

from space import Kind, at_least_zoom, with_fitted_anchors

from cellseg.config import RunConfig
from cellseg.experiment import Prepared, prepare, reduced
from cellseg.fingerprint import Fingerprint, fingerprint


@dataclass(frozen=True)
class Rungs:
    """The data and the configs of a study."""

    trials: Prepared
    """a short schedule on a subset"""
    finals: Prepared
    """the full schedule on all data"""
    cells: Fingerprint
    """of all training images"""


def prepare_rungs(config: RunConfig, root: Path, epochs: int | None, subset: float, space: Kind) -> Rungs:
    """Read and check the data; the epochs of a trial are by default a fifth of the config's.

    Crops have room for the views of every trial, whatever its zoom.
    Raises ValueError for data that the training refuses, or without images to validate on.
    """
    whole = prepare(replace(config, dataset=replace(config.dataset, subset=1.0)), root)
    require_validation(whole)
    cells = fingerprint(whole.data, whole.train)
    whole = with_fitted_anchors(whole, cells)
    train = replace(whole.config.train, epochs=epochs or max(1, round(config.train.epochs / 5)), patience=0)
    short = replace(whole.config, train=train)
    trials = reduced(replace(whole, config=at_least_zoom(short, whole.plan, space)), subset)
    trials = replace(trials, config=replace(trials.config, predict=short.predict))
    return Rungs(trials, whole, cells)


def require_validation(whole: Prepared) -> None:
    """Raise ValueError without images to validate on: no trial would have a value."""
    if not whole.validation:
        raise ValueError(
            f"{whole.root}: a search needs images to validate on, found {len(whole.train)} in all and none held back; "
            "add images, or raise --dataset.validation-fraction"
        )
