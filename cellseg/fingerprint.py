"""What a data set looks like -> a Plan: the numbers of a config that depend on the data.

Letters: N cells of all training images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from cellseg import anchors
from cellseg.codes import Array
from cellseg.config import OVERLAP, ModelConfig, PredictConfig, RunConfig, TrainConfig
from cellseg.label_maps import areas_of, boxes_of

TARGET_SIDE = 30.0
"""network pixels that the median cell's box side is brought to"""
LONGEST = 99.9
"""percentile of the longer box sides that an overlap is made for: the very longest may be a slip of annotation"""
ROOM = 1.25
"""an overlap by the longer side of such a cell, so that a tile sees it whole and some of what lies around it"""


class Named(Protocol):
    """What a fingerprint reads of a record."""

    @property
    def name(self) -> str:
        """Of the image."""


class Annotated(Protocol):
    """What a fingerprint reads: dataset.DataSet has it."""

    channel_order: str
    class_names: tuple[str, ...]
    digest: str

    @property
    def mpp(self) -> float | None:
        """Microns per pixel."""

    @property
    def records(self) -> Sequence[Named]:
        """One an image."""

    def label_maps(self, index: int) -> Array:
        """(C, H, W) int32."""


@dataclass(frozen=True)
class Fingerprint:
    """Measures of the cells of some images."""

    boxes: tuple[Array, ...]
    """per image, (N, 4) float32 xyxy of its cells"""
    labels: tuple[Array, ...]
    """per image, (N,) class 1..C of its cells"""
    areas: tuple[Array, ...]
    """per image, (N,) pixels of its cells"""
    sizes_hw: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    """of the images"""


@dataclass(frozen=True)
class Plan:
    """What a data set asks of a network; saved with every checkpoint."""

    digest: str
    class_names: tuple[str, ...]
    channel_order: str
    zoom: float
    crop: int
    anchor_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    detections: int
    median_side: float
    """of a cell's box, original pixels"""
    most_cells: int
    """in one image"""
    overlap: int = OVERLAP
    class_cells: tuple[int, ...] = ()
    """cells of each class in the training images"""
    images: tuple[str, ...] = ()
    """names of the training images"""
    image_weights: tuple[float, ...] = ()
    """how often each is shown, mean 1"""
    mpp: float | None = None
    """microns per pixel of the training images; None where it is not known"""


def fingerprint(data: Annotated, indices: Sequence[int]) -> Fingerprint:
    """Measures of the images with these indices."""
    return joined([measured(data.records[index].name, data.label_maps(index)) for index in indices])


def measured(name: str, label_maps: Array) -> Fingerprint:
    """Measures of one image with label maps (C, H, W)."""
    per_class = [boxes_of(label_map) for label_map in label_maps]
    labels = np.repeat(np.arange(1, len(label_maps) + 1), [len(each) for each in per_class])
    areas = np.concatenate([areas_of(label_map) for label_map in label_maps])
    size_hw = (int(label_maps.shape[1]), int(label_maps.shape[2]))
    return Fingerprint((np.concatenate(per_class),), (labels,), (areas,), (size_hw,), (name,))


def joined(parts: Sequence[Fingerprint]) -> Fingerprint:
    """Measures of all images of the parts, one part after the other."""
    return Fingerprint(
        boxes=tuple(boxes for part in parts for boxes in part.boxes),
        labels=tuple(labels for part in parts for labels in part.labels),
        areas=tuple(areas for part in parts for areas in part.areas),
        sizes_hw=tuple(size for part in parts for size in part.sizes_hw),
        names=tuple(name for part in parts for name in part.names),
    )


def network_boxes(found: Fingerprint, config: PredictConfig) -> Array:
    """(N, 4) float32 xyxy of all cells, in the network pixels that the config brings their images to."""
    scaled = [boxes * config.scale_of(size) for boxes, size in zip(found.boxes, found.sizes_hw, strict=True)]
    return np.concatenate([np.empty((0, 4), np.float32), *scaled]).astype(np.float32)


def plan(data: Annotated, found: Fingerprint, config: RunConfig) -> Plan:
    """The Plan of a data set for a config; what the config sets itself is taken over from it."""
    boxes = np.concatenate([np.empty((0, 4), np.float32), *found.boxes])
    if not len(boxes):
        raise ValueError(
            "training images: expected at least one annotated cell, found none; are the class files there?"
        )
    median_side = float(np.median(anchors.sides_of(boxes)))
    zoom = config.predict.zoom or round(float(np.clip(TARGET_SIDE / median_side, 0.25, 4)), 2)
    scaled = network_boxes(found, replace(config.predict, zoom=zoom))
    sizes, ratios = _anchors(scaled, config.model)
    most_cells = max(len(each) for each in found.boxes)
    longest = max(max(size) for size in found.sizes_hw) * zoom
    return Plan(
        digest=data.digest,
        class_names=data.class_names,
        channel_order=data.channel_order,
        zoom=zoom,
        crop=int(min(512, -(-longest // 32) * 32)) if config.augment.crop is None else config.augment.crop,
        anchor_sizes=sizes,
        aspect_ratios=ratios,
        detections=config.predict.detections or int(np.clip(1.5 * most_cells, 100, 2000)),
        median_side=median_side,
        most_cells=most_cells,
        overlap=_overlap(scaled, config.predict),
        class_cells=tuple(np.bincount(np.concatenate(found.labels), minlength=len(data.class_names) + 1)[1:].tolist()),
        images=found.names,
        image_weights=tuple(sampling_weights(found, config.train).tolist()),
        mpp=data.mpp,
    )


def apply(config: RunConfig, found: Plan) -> RunConfig:
    """The config with every field that was left to the Plan filled in."""
    return replace(
        config,
        augment=replace(config.augment, crop=found.crop),
        model=replace(
            config.model,
            anchor_sizes=found.anchor_sizes,
            aspect_ratios=found.aspect_ratios,
            num_cell_classes=len(found.class_names),
            class_shares=config.model.class_shares or _shares_asked_for(found, config.model),
        ),
        predict=replace(config.predict, zoom=found.zoom, overlap=found.overlap, detections=found.detections),
    )


def _shares_asked_for(found: Plan, config: ModelConfig) -> tuple[float, ...] | None:
    """Those of the Plan where training adjusts for them; a Plan from before has none."""
    return (class_shares(found.class_cells) or None) if config.logit_adjustment else None


def class_shares(class_cells: Sequence[int]) -> tuple[float, ...]:
    """Share of each class among all cells, never 0: a class without a cell counts as half a cell."""
    counts = np.maximum(class_cells, 0.5)
    shares: list[float] = (counts / counts.sum()).tolist()
    return tuple(shares)


def sampling_weights(found: Fingerprint, config: TrainConfig) -> Array:
    """How often each image is shown, mean 1: more where its rarest class is rare, and with its size.

    Repeat factors sqrt(t / f) of the share f of images with a class (LVIS, arXiv 1908.03195), t = 1/2.
    """
    weights = np.ones(len(found.labels))
    if config.oversample and len(weights):
        held = [set(np.unique(labels).tolist()) for labels in found.labels]
        share = {k: sum(k in each for each in held) / len(held) for each in held for k in each}
        repeats = [max([1.0, *(np.sqrt(0.5 / share[k]) for k in each)]) for each in held]
        extent = [np.sqrt(height * width) for height, width in found.sizes_hw]
        weights = np.asarray(repeats) * np.asarray(extent)
    mean_one: Array = weights / weights.mean() if len(weights) else weights
    return mean_one


def _overlap(boxes_xyxy: Array, config: PredictConfig) -> int:
    """The config's own overlap, or one in which the largest cells fit: a multiple of 32, 64 to half a tile."""
    if config.overlap is not None:
        return config.overlap
    longer = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1)
    wanted = max(64, math.ceil(ROOM * float(np.percentile(longer, LONGEST)) / 32) * 32)
    return min(wanted, config.tile // 2) if config.tile else wanted


def _anchors(boxes_xyxy: Array, config: ModelConfig) -> tuple[anchors.Sizes, anchors.Ratios]:
    """The config's own anchors where it has them, and fitted ones where not."""
    sizes, ratios = anchors.fit(boxes_xyxy, config.levels, config.sizes_per_level)
    return config.anchor_sizes or sizes, config.aspect_ratios or ratios
