"""Images -> the pixels that an opponent's network takes, and its detections as COCO results.

Letters: N detections, H x W size of an image.
"""

from collections.abc import Iterable

import numpy as np
import torch
from opponents import Opponent
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from cellseg.codes import Array
from cellseg.config import IMAGENET_MEAN, IMAGENET_STD
from cellseg.predict import Result

MASK_THRESHOLD = 0.5


def pixels_of(image: Array, opponent: Opponent) -> Tensor:
    """The image (H, W, 3) uint8 as the network takes it, (3, H, W) float32 of 0..1, or normalised once already."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
    if opponent.normalized_before:
        mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
        pixels = (pixels - mean) / std
    return pixels


@torch.inference_mode()
def predicted(model: MaskRCNN, images: Iterable[tuple[int, Array]], opponent: Opponent, zoom: float) -> list[Result]:
    """COCO results of (image id, image (H, W, 3) uint8) pairs, each image whole."""
    model.eval()
    device = next(model.parameters()).device
    results: list[Result] = []
    for image_id, image in images:
        if opponent.crop:
            set_zoom(model, image.shape[:2], zoom)
        (found,) = model([pixels_of(image, opponent).to(device)])
        results += _results(found, image_id)
    return results


def set_zoom(model: MaskRCNN, size_hw: tuple[int, ...], zoom: float) -> None:
    """Have torchvision scale the next image, of this size, by the zoom."""
    model.transform.min_size = (min(size_hw) * zoom,)
    model.transform.max_size = max(size_hw) * zoom


def _results(found: dict[str, Tensor], image_id: int) -> list[Result]:
    """COCO results of torchvision's detections; a mask without any pixel is dropped."""
    results = []
    masks = found["masks"][:, 0] > MASK_THRESHOLD  # (N, H, W)
    for box, label, score, mask in zip(found["boxes"], found["labels"], found["scores"], masks, strict=True):
        if mask.any():
            code = coco_mask.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
            x1, y1, x2, y2 = box.tolist()
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                    "segmentation": {"size": list(code["size"]), "counts": code["counts"].decode()},
                }
            )
    return results
