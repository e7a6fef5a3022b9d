"""Model + images -> COCO results, the one way to them for validation, scoring and submission.

Letters: N detections, M side of a mask, H x W original size of an image.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from cellseg.augment import network_size, resized
from cellseg.codes import Array, nonempty
from cellseg.config import PredictConfig
from cellseg.label_maps import codes_of, paint
from cellseg.model import CellRCNN, set_operating_point
from cellseg.paste import paste

Result = dict[str, Any]
"""COCO: image_id, category_id, bbox xywh, score, segmentation."""


@dataclass(frozen=True)
class Detections:
    """Cells found in one image, original pixels, nothing pasted."""

    boxes: Tensor  # (N, 4) float32 xyxy
    labels: Tensor  # (N,) int64, 1..C
    scores: Tensor  # (N,) float32, 0..1
    masks: Tensor  # (N, M, M) float32 probabilities in the boxes


def predict(model: CellRCNN, images: Iterable[tuple[int, Array]], config: PredictConfig) -> list[Result]:
    """Results of (image id, image (H, W, 3) uint8) pairs by image, then falling score: the ap operating point."""
    results: list[Result] = []
    for image_id, image in images:
        results += to_results(detect(model, image, config), image_id, (image.shape[0], image.shape[1]), config)
    return sorted(results, key=lambda result: (result["image_id"], -result["score"]))


@torch.inference_mode()
def detect(model: CellRCNN, image: Array, config: PredictConfig) -> Detections:
    """Detections of one image (H, W, 3) uint8; tile by tile where it is larger than a tile."""
    model.eval()
    set_operating_point(model, config)
    size_hw = image.shape[:2]
    network_image = resized(image, network_size(size_hw, config.scale_of(size_hw)))
    found = [_detect_tile(model, network_image, *tile) for tile in tiles(network_image.shape[:2], config)]
    merged = {name: torch.cat([each[name] for each in found]) for name in ("boxes", "labels", "scores", "masks")}
    if config.rescore:
        merged["scores"] = merged["scores"] * mask_certainty(merged["masks"], config.mask_threshold)
    if len(found) > 1:
        kept = batched_nms(merged["boxes"], merged["scores"], merged["labels"], config.box_nms)
    else:
        kept = merged["scores"].argsort(descending=True, stable=True)
    merged = {name: values[kept[: config.detections]] for name, values in merged.items()}
    shrink = [
        original / network for original, network in zip(image.shape[1::-1], network_image.shape[1::-1], strict=True)
    ]
    boxes = merged["boxes"] * merged["boxes"].new_tensor(shrink * 2)
    return Detections(boxes, merged["labels"], merged["scores"], merged["masks"])


def to_results(found: Detections, image_id: int, size_hw: tuple[int, int], config: PredictConfig) -> list[Result]:
    """COCO results of an image's detections, in their order; a mask without any pixel is dropped."""
    boxes = found.boxes.float().cpu().numpy()
    codes = paste(found.masks.float().cpu().numpy(), boxes, size_hw, config.mask_threshold)
    return [
        {
            "image_id": image_id,
            "category_id": int(label),
            "bbox": [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": float(score),
            "segmentation": code,
        }
        for (x1, y1, x2, y2), label, score, code, kept in zip(
            boxes, found.labels, found.scores, codes, nonempty(codes), strict=True
        )
        if kept
    ]


def settled(
    results: Iterable[Result], num_cell_classes: int, size_hw: tuple[int, int], config: PredictConfig
) -> tuple[Array, list[Result]]:
    """The pq operating point of one image: label maps (C, H, W) without overlap, and the results redrawn from them.

    Results under `pq_threshold` are left out; of two cells the higher score wins a pixel, also across classes; cell n
    of the maps is result n - 1; cells that lost all their pixels are dropped.
    """
    rising = sorted((r for r in results if r["score"] >= config.pq_threshold), key=lambda r: float(r["score"]))
    ordered = [r["segmentation"] for r in rising]
    (flat,) = paint(ordered, [1] * len(rising), 1, size_hw)
    kept = np.unique(flat[flat > 0])[::-1]  # highest score first
    new_ids = np.zeros(len(rising) + 1, np.int32)
    new_ids[kept] = np.arange(1, len(kept) + 1)
    flat = new_ids[flat]
    labels = np.array([0] + [rising[k - 1]["category_id"] for k in kept])
    classes = np.arange(1, num_cell_classes + 1)[:, None, None]
    label_maps: Array = np.where(labels[flat] == classes, flat, 0).astype(np.int32)
    codes = codes_of(flat)
    return label_maps, [{**rising[k - 1], "segmentation": code} for k, code in zip(kept, codes, strict=True)]


def mask_certainty(masks: Tensor, threshold: float) -> Tensor:
    """Mean probability (N,) of the part of each mask (N, M, M) over the threshold; 0 where no part is."""
    inside = masks > threshold
    return (masks * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


Tile = tuple[slice, slice, tuple[float, float, float, float]]


def tiles(size_hw: Iterable[int], config: PredictConfig) -> Iterator[Tile]:
    """Rows, columns and core xyxy of the tiles that cover a network image.

    A detection counts where its centre is in the core: the tile less half the overlap where it has a neighbour, and a
    pixel more, so that a centre on the seam is found by one tile at least; the NMS over all tiles removes the second.
    """
    spans = [_spans(length, config.tile, config.overlap) for length in size_hw]
    for top, bottom, core_top, core_bottom in spans[0]:
        for left, right, core_left, core_right in spans[1]:
            yield slice(top, bottom), slice(left, right), (core_left, core_top, core_right, core_bottom)


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int, float, float]]:
    """Start, end and core of evenly spread tiles along one side."""
    if not tile or length <= tile:
        return [(0, length, -1.0, length + 1.0)]
    count = -(-(length - overlap) // (tile - overlap))
    starts = [round(k * (length - tile) / (count - 1)) for k in range(count)]
    seams = [-1.0, *((a + tile + b) / 2 for a, b in pairwise(starts)), length + 1.0]
    return [(start, start + tile, seams[k] - 1, seams[k + 1] + 1) for k, start in enumerate(starts)]


def _detect_tile(
    model: CellRCNN, network_image: Array, rows: slice, columns: slice, core: tuple[float, float, float, float]
) -> dict[str, Tensor]:
    """Detections of one tile whose centres lie in its core, in pixels of the whole network image."""
    pixels = np.ascontiguousarray(network_image[rows, columns].transpose(2, 0, 1))
    device = next(model.parameters()).device
    (found,) = model([torch.from_numpy(pixels).to(device)])
    boxes = found["boxes"] + found["boxes"].new_tensor([columns.start, rows.start] * 2)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = boxes.new_tensor(core[:2]), boxes.new_tensor(core[2:])
    owned = ((centres >= low) & (centres < high)).all(dim=1)
    return {name: values[owned] for name, values in {**found, "boxes": boxes}.items()}
