"""What `cellseg inspect` tells of a data set.

Letters: N images, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellseg import anchors
from cellseg.ceiling import ap_ceiling, of_all_classes, of_each_class
from cellseg.codes import Array
from cellseg.config import TORCHVISION_ANCHORS, TORCHVISION_RATIOS
from cellseg.config_fields import to_dict
from cellseg.findings import findings
from cellseg.fingerprint import Fingerprint, Plan, apply, plan
from cellseg.recipes import REFERENCE_ANCHORS, REFERENCE_RATIOS, best
from cellseg.survey import Survey

MOST_SHOWN = 5
"""images that are named as those that training shows most often"""
PERCENTILES = (5, 50, 95)
"""of the sides of cells"""


def inspect(seen: Survey) -> dict[str, Any]:
    """What was seen, best possible recalls, AP ceilings, the Plan of `best`, and warnings, as JSON.

    Three numbers are the least, median and most of all images.
    """
    config, data, found = best(), seen.data, seen.found
    chosen = plan(data, found, config)
    heights, widths = zip(*found.sizes_hw, strict=True)
    cells = [len(boxes) for boxes in found.boxes]
    warnings = findings(seen, apply(config, chosen).predict, config.dataset.minimum_area)
    return {
        "images": len(data),
        "test_images": None if seen.tests is None else len(seen.tests),
        "height": _spread(heights),
        "width": _spread(widths),
        "cells": sum(cells),
        "cells_per_image": _spread(cells),
        "cells_per_megapixel": _spread([n * 1e6 / (h * w) for n, (h, w) in zip(cells, found.sizes_hw, strict=True)]),
        "cells_per_class": dict(zip(data.class_names, data.cell_counts.sum(axis=0).tolist(), strict=True)),
        "images_per_class": dict(zip(data.class_names, (data.cell_counts > 0).sum(axis=0).tolist(), strict=True)),
        "cell_sides": cell_sides(found, data.class_names),
        "overlapping_cells": data.overlaps,
        "channel_order": data.channel_order,
        "channel_order_reason": data.channel_order_reason,
        "digest": data.digest,
        "best_possible_recall": best_possible_recalls(np.concatenate(found.boxes) * chosen.zoom, chosen),
        "ap_ceiling": ap_ceilings(seen.annotated, data.class_names),
        "most_shown": most_shown(chosen),
        "plan": {name: value for name, value in to_dict(chosen).items() if name not in ("images", "image_weights")}
        | {"class_cells": dict(zip(chosen.class_names, chosen.class_cells, strict=True))},
        "warnings": [to_dict(warning) for warning in warnings],
    }


def cell_sides(found: Fingerprint, class_names: Sequence[str]) -> dict[str, list[float] | None]:
    """PERCENTILES of the sides in pixels of the cells of each class, None where it has none."""
    sides, labels = anchors.sides_of(np.concatenate(found.boxes)), np.concatenate(found.labels)
    each = {name: sides[labels == label] for label, name in enumerate(class_names, start=1)}
    return {
        name: np.percentile(some, PERCENTILES).round(1).tolist() if len(some) else None for name, some in each.items()
    }


def best_possible_recalls(boxes_xyxy: Array, chosen: Plan) -> dict[str, float]:
    """Of torchvision's default, the reference's and the Plan's anchors, for boxes (N, 4) in network pixels."""
    sets = {
        "torchvision": (TORCHVISION_ANCHORS, TORCHVISION_RATIOS),
        "reference": (REFERENCE_ANCHORS, REFERENCE_RATIOS),
        "fitted": (chosen.anchor_sizes, chosen.aspect_ratios),
    }
    strides = anchors.strides_of(best().model.levels)
    return {name: anchors.best_possible_recall(boxes_xyxy, *each, strides) for name, each in sets.items()}


def ap_ceilings(annotated: Array, class_names: Sequence[str]) -> dict[str, Any]:
    """The AP of a perfect detector on cells (N, C) of which 100 of a class and image count, or 100 of an image.

    Both are means over classes; for the first also each class, None of one without a cell.
    """
    of_class = ap_ceiling(of_each_class(annotated), annotated)
    return {
        "100_per_class_and_image": float(np.nanmean(of_class)),
        "100_per_image": float(np.nanmean(ap_ceiling(of_all_classes(annotated), annotated))),
        "per_class": {
            name: None if np.isnan(one) else one for name, one in zip(class_names, of_class.tolist(), strict=True)
        },
    }


def most_shown(chosen: Plan) -> dict[str, float]:
    """The images that training shows most often, by name, and how often: 1 is the mean over all images."""
    weights = zip(chosen.images, chosen.image_weights, strict=True)
    return dict(sorted(weights, key=lambda each: each[1], reverse=True)[:MOST_SHOWN])


def _spread(numbers: Sequence[float]) -> list[int]:
    return [round(each) for each in (min(numbers), float(np.median(numbers)), max(numbers))]
