"""Which numbers the fields of a config may have."""

from collections.abc import Iterator
from typing import Any

AT_LEAST = {
    "seed": 0,
    "dataset.split_seed": 0,
    "dataset.minimum_area": 0,
    "dataset.workers": 0,
    "augment.crop": 0,
    "augment.zoom_jitter": 1,
    "augment.copy_paste": 0,
    "model.num_cell_classes": 1,
    "model.fpn_channels": 1,
    "model.sizes_per_level": 1,
    "model.roi_levels": 1,
    "model.box_head": 1,
    "model.mask_channels": 1,
    "model.logit_adjustment": 0,
    "model.rpn_pre_nms": 1,
    "model.rpn_post_nms": 1,
    "model.rpn_batch": 1,
    "model.roi_batch": 1,
    "train.weight_decay": 0,
    "train.epochs": 1,
    "train.steps_per_epoch": 0,
    "train.batch": 1,
    "train.accumulation": 1,
    "train.clip_norm": 0,
    "train.validate_every": 1,
    "train.patience": 0,
    "predict.short_side": 0,
    "predict.long_side": 1,
    "predict.tile": 0,
    "predict.overlap": 0,
    "predict.tile_batch": 1,
    "predict.proposals": 1,
    "predict.detections": 1,
}
ABOVE_0 = {
    "dataset.mpp",
    "model.anchor_sizes",
    "model.aspect_ratios",
    "model.image_std",
    "train.learning_rate",
    "predict.zoom",
    "predict.zooms",
}
SHARES = {
    "augment.color_jitter",
    "augment.stain_jitter",
    "augment.blur",
    "augment.noise",
    "augment.rare_windows",
    "augment.least_share",
    "model.rpn_nms",
    "model.rpn_positive_fraction",
    "model.roi_positive_fraction",
    "train.momentum",
    "train.warmup_fraction",
    "train.ema_decay",
    "predict.score_threshold",
    "predict.box_nms",
    "predict.mask_threshold",
    "predict.pq_threshold",
}


def require_ranges(group: str, config: Any) -> None:
    """Raise ValueError for the first field of a group, such as `train`, or of none, whose number makes no sense."""
    for field, value in vars(config).items():
        name = f"{group}.{field}" if group else field
        for number in _numbers(value):
            if name in AT_LEAST and not number >= AT_LEAST[name]:
                raise ValueError(f"{name}: expected at least {AT_LEAST[name]}, got {number:g}")
            if name in ABOVE_0 and not number > 0:
                raise ValueError(f"{name}: expected more than 0, got {number:g}")
            if name in SHARES and not 0 <= number <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {number:g}")


def _numbers(value: Any) -> Iterator[float]:
    """Those of a field: one, several, or none."""
    yield from (each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, int | float))
