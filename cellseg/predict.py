"""Model + images -> COCO results, the one way to them for validation, scoring and submission.

An image is predicted tile by tile and coded row by row of tiles: its pixels are never held as a whole, its cells are.
Letters: N detections, M side of a mask, h x w size of a tile, H x W original size of an image.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellseg.calibration import calibrated
from cellseg.codes import Array, nonempty
from cellseg.config import PredictConfig
from cellseg.ensemble import Ensemble, ensemble_of, found_by
from cellseg.model import CellRCNN, set_operating_point
from cellseg.paste import paste
from cellseg.seams import Detections, stitched
from cellseg.slides import Image
from cellseg.tiles import Tile, tiles

Result = dict[str, Any]
"""COCO: image_id, category_id, bbox xywh, score, segmentation."""


def predict(model: CellRCNN | Ensemble, images: Iterable[tuple[int, Image]], config: PredictConfig) -> list[Result]:
    """Results of (image id, image (H, W, 3) uint8) pairs by image, then falling score: the ap operating point."""
    results: list[Result] = []
    for image_id, image in images:
        for found in detect(model, image, config):
            results += to_results(found, image_id, (image.shape[0], image.shape[1]), config)
    return sorted(results, key=lambda result: (result["image_id"], -result["score"]))


def detect(model: CellRCNN | Ensemble, image: Image, config: PredictConfig) -> Iterator[Detections]:
    """Detections of one image, row by row of its tiles."""
    ensemble = ensemble_of(model)
    for network in ensemble.networks:
        network.eval()
        set_operating_point(network, config)
    every = tiles(image.shape[:2], config, ensemble.stride)
    members = len(ensemble.members(config, image.shape[:2]))  # the features of all are held at once
    batches = _batches(every, max(1, config.tile_batch // members) if ensemble.device.type == "cuda" else 1)
    found = (
        pair
        for batch, windows in _read_ahead(image, batches)
        for pair in zip(batch, detect_tiles(ensemble, windows, batch, config), strict=True)
    )
    yield from stitched(found, config.box_nms)


@torch.inference_mode()
def detect_tiles(
    model: CellRCNN | Ensemble, windows: Sequence[Array], batch: Sequence[Tile], config: PredictConfig
) -> list[Detections]:
    """What each tile keeps, given their pixels (h, w, 3) uint8 at network size; one forward pass of each member."""
    ensemble = ensemble_of(model)
    device, members = ensemble.device, ensemble.members(config, batch[0].image_hw)
    images = [_on_device(window, device) for window in windows]
    cores = torch.tensor([tile.network_core for tile in batch], device=device)
    kept = []
    for tile, found in zip(batch, found_by(members, images, cores), strict=True):
        boxes, scores, masks = found["boxes"], found["scores"], found["masks"]
        boxes = (boxes + boxes.new_tensor(tile.corner_xy * 2)) / boxes.new_tensor(tile.scale_xy * 2)
        if config.rescore:
            scores = scores * mask_certainty(masks, config.mask_threshold)
        if config.mask_quality and "qualities" in found:
            scores = scores * found["qualities"]
        if config.calibration is not None:
            scores = calibrated(scores, boxes, found["labels"], config.calibration)
        kept.append(Detections(boxes, found["labels"], scores, masks))
    return kept


def to_results(found: Detections, image_id: int, size_hw: tuple[int, int], config: PredictConfig) -> list[Result]:
    """COCO results of an image's detections, in their order; a mask without any pixel is dropped."""
    boxes = found.boxes.float().cpu().numpy()
    codes = paste(found.masks.float(), found.boxes, size_hw, config.mask_threshold)
    return [
        {
            "image_id": image_id,
            "category_id": label,
            "bbox": [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": score,
            "segmentation": code,
        }
        for (x1, y1, x2, y2), label, score, code, kept in zip(
            boxes, found.labels.tolist(), found.scores.tolist(), codes, nonempty(codes), strict=True
        )
        if kept
    ]


def mask_certainty(masks: Tensor, threshold: float) -> Tensor:
    """Mean probability (N,) of the part of each mask (N, M, M) over the threshold; 0 where no part is."""
    inside = masks > threshold
    return (masks * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def _on_device(window: Array, device: torch.device) -> Tensor:
    """(3, h, w) uint8; on its way to a GPU while the CPU goes on."""
    pixels = torch.from_numpy(np.require(window, requirements=["C", "W"]))
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    return pixels.to(device, non_blocking=True).permute(2, 0, 1)


def _batches(every: Iterable[Tile], count: int) -> Iterator[list[Tile]]:
    """At most `count` neighbours of one size together: a larger one would have the others padded."""
    for _, alike in groupby(every, key=lambda tile: tile.network_hw):
        while batch := list(islice(alike, count)):
            yield batch


def _read_ahead(image: Image, batches: Iterable[list[Tile]]) -> Iterator[tuple[list[Tile], list[Array]]]:
    """Batches of tiles and their pixels; the next is read while the network works on one."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for batch in batches:
            following = batch, reader.submit(_read, image, batch)
            if ahead:
                yield ahead[0], ahead[1].result()
            ahead = following
        if ahead:
            yield ahead[0], ahead[1].result()


def _read(image: Image, batch: Sequence[Tile]) -> list[Array]:
    return [tile.read(image) for tile in batch]
