"""What `cellseg inspect` tells of a data set."""

from pathlib import Path
from typing import Any

import numpy as np

from cellseg import anchors
from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS, DatasetConfig
from cellseg.config_fields import to_dict
from cellseg.dataset import open_dataset
from cellseg.fingerprint import Plan, fingerprint, plan
from cellseg.recipes import REFERENCE_ANCHORS, REFERENCE_RATIOS, best

MOST_SHOWN = 5
"""images that are named as those that training shows most often"""


def inspect(root: Path, channel_order: str = "auto") -> dict[str, Any]:
    """Images, sizes, cells per class, channel order, best possible recalls, and the Plan of `best`, as JSON."""
    data = open_dataset(root, DatasetConfig(channel_order=channel_order))  # type: ignore[arg-type]
    config = best()
    found = fingerprint(data, range(len(data)))
    chosen = plan(data, found, config)
    boxes = np.concatenate(found.boxes) * chosen.zoom
    strides = anchors.strides_of(config.model.levels)
    sets = {
        "torchvision": (TORCHVISION_ANCHORS, TORCHVISION_RATIOS),
        "reference": (REFERENCE_ANCHORS, REFERENCE_RATIOS),
        "fitted": (chosen.anchor_sizes, chosen.aspect_ratios),
    }
    heights, widths = zip(*found.sizes_hw, strict=True)
    per_image = [len(each) for each in found.boxes]
    return {
        "images": len(data),
        "height": [min(heights), round(float(np.median(heights))), max(heights)],
        "width": [min(widths), round(float(np.median(widths))), max(widths)],
        "cells": sum(per_image),
        "cells_per_image": [min(per_image), round(float(np.median(per_image))), max(per_image)],
        "cells_per_class": dict(zip(data.class_names, data.cell_counts.sum(axis=0).tolist(), strict=True)),
        "overlapping_cells": data.overlaps,
        "channel_order": data.channel_order,
        "channel_order_reason": data.channel_order_reason,
        "digest": data.digest,
        "best_possible_recall": {
            name: anchors.best_possible_recall(boxes, sizes, ratios, strides) for name, (sizes, ratios) in sets.items()
        },
        "most_shown": most_shown(chosen),
        "plan": {name: value for name, value in to_dict(chosen).items() if name not in ("images", "image_weights")}
        | {"class_cells": dict(zip(chosen.class_names, chosen.class_cells, strict=True))},
    }


def most_shown(chosen: Plan) -> dict[str, float]:
    """The images that training shows most often, by name, and how often: 1 is the mean over all images."""
    weights = zip(chosen.images, chosen.image_weights, strict=True)
    return dict(sorted(weights, key=lambda each: each[1], reverse=True)[:MOST_SHOWN])
