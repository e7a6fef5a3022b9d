"""The named recipes: a RunConfig each, with numbers that depend on the data left to the Plan."""

from collections.abc import Callable
from dataclasses import replace

from cellseg.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentConfig,
    DatasetConfig,
    ModelConfig,
    PredictConfig,
    RunConfig,
    TrainConfig,
)

REFERENCE_ANCHORS = (4.0, 8.0, 12.0, 24.0, 48.0)
REFERENCE_RATIOS = (0.25, 0.5, 1.0)


def best() -> RunConfig:
    """The recipe for a GPU: everything that won so far, data-set-dependent numbers left to the Plan."""
    return RunConfig(
        model=ModelConfig(roi_positive_fraction=0.5, backbone="resnet101"),
        train=TrainConfig(epochs=100, batch=4),
        predict=PredictConfig(box_nms=0.4, score_threshold=0.01),
    )


def reference() -> RunConfig:
    """The published solution (public AP50 0.378) with the anchors that it meant to use.

    Its double normalisation, ((x - m) / s - m) / s, is the mean m (1 + s) with the deviation s^2.
    """
    return RunConfig(
        recipe="reference",
        seed=63,
        dataset=DatasetConfig(color="gray", grouped_split=False, split_seed=63),
        augment=AugmentConfig(
            crop=0, zoom_jitter=1.0, flips=False, turns=False, color_jitter=0.0, stain_jitter=0.0, blur=0.0, noise=0.0
        ),
        model=ModelConfig(
            backbone="resnet50_v2",
            weights="coco",
            norm="batch",
            trainable_stages=3,
            anchor_sizes=REFERENCE_ANCHORS,
            aspect_ratios=REFERENCE_RATIOS,
            roi_levels=2,
            image_mean=tuple(m * (1 + s) for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)),  # type: ignore[arg-type]
            image_std=tuple(s * s for s in IMAGENET_STD),  # type: ignore[arg-type]
            rpn_post_nms=2000,
        ),
        train=TrainConfig(
            optimizer="sgd",
            learning_rate=0.005,
            weight_decay=5e-4,
            epochs=50,
            batch=4,
            clip_norm=0.0,
            ema_decay=0.0,
            oversample=False,
            patience=10,
        ),
        predict=PredictConfig(
            zoom=1.0,
            short_side=800,
            tile=1344,
            overlap=128,
            proposals=1000,
            score_threshold=0.5,
            detections=100,
            rescore=False,
        ),
    )


def demo() -> RunConfig:
    """A small network that learns the sample data set in minutes on two CPU cores, from scratch."""
    return RunConfig(
        recipe="demo",
        dataset=DatasetConfig(workers=0),
        augment=AugmentConfig(crop=192, blur=0.0, noise=0.0),
        model=ModelConfig(
            backbone="resnet18",
            stages=3,
            weights="none",
            norm="batch",
            fpn_channels=64,
            extra_level=False,
            roi_levels=2,
            box_head=128,
            mask_channels=(32, 32),
            rpn_pre_nms=400,
            rpn_post_nms=400,
            rpn_batch=256,
            roi_batch=64,
            roi_positive_fraction=0.5,
        ),
        train=TrainConfig(
            learning_rate=1e-3,
            weight_decay=1e-4,
            warmup_fraction=0.1,
            epochs=4,
            steps_per_epoch=60,
            batch=2,
            ema_decay=0.99,
        ),
        predict=PredictConfig(tile=512, proposals=600),
    )


def best_cpu() -> RunConfig:
    """A quarter of an hour on two CPU cores: the demo's network, 6,000 steps. A step costs what decides there."""
    small = demo()
    return replace(
        small,
        recipe="best-cpu",
        train=replace(small.train, epochs=12, steps_per_epoch=500, ema_decay=0.998, validate_every=3),
        predict=replace(small.predict, box_nms=0.4, score_threshold=0.01, pq_threshold=0.4),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "demo": demo,
    "reference": reference,
    "best": best,
    "best-cpu": best_cpu,
}
