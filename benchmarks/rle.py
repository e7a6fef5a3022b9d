"""Claim: detections become run-length codes window by window, against torchvision's canvases and pycocotools' encode.

Oracle of our rule (cellseg/paste.py): each pixel centre around a box, one by one, by scipy. torchvision rounds boxes to
whole pixels, so that its answer is compared by IoU.
"""

from functools import partial

from measure import Case, main

import numpy as np
import torch
from pycocotools import mask as coco_mask
from rows import Notes
from scenes import detections
from scipy.ndimage import map_coordinates
from torchvision.models.detection.roi_heads import paste_masks_in_image

from cellseg.codes import Array, Code, decode
from cellseg.paste import paste

COUNTS = (100, 300, 1000)
SIZE_HW = (1400, 1872)
COMPARED = 100
"""detections whose IoU with torchvision's is taken"""
TIE = 1e-5
"""probabilities this close to the threshold may fall on either side: float32 against float64"""


def cases(quick: bool) -> list[Case]:
    """More and more detections on one large image."""
    sizes, size_hw = ((5,), (90, 120)) if quick else (COUNTS, SIZE_HW)
    return [case_of(count, size_hw) for count in sizes]


def case_of(count: int, size_hw: tuple[int, int]) -> Case:
    """The codes of one image's detections."""
    masks, boxes = detections(count, size_hw)
    ours = partial(paste, torch.from_numpy(masks), torch.from_numpy(boxes), size_hw)
    return Case(
        count,
        ours,
        partial(pasted_and_encoded, masks, boxes, size_hw),
        lambda: compared(ours(), masks, boxes, size_hw),
        theirs_needs_mb=2.1 * masks.itemsize * count * size_hw[0] * size_hw[1] / 1e6,  # it stacks a list of canvases
    )


def pasted_and_encoded(masks: Array, boxes_xyxy: Array, size_hw: tuple[int, int]) -> list[Code]:
    """Codes as torchvision's users make them; thresholded one by one, the kindest to its memory."""
    canvases = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes_xyxy), size_hw)
    return [coco_mask.encode(np.asfortranarray((canvas[0] > 0.5).numpy().astype(np.uint8))) for canvas in canvases]


def compared(codes: list[Code], masks: Array, boxes_xyxy: Array, size_hw: tuple[int, int]) -> Notes:
    """The mean IoU with torchvision's codes, after ours were found equal to the oracle."""
    for code, mask, box in zip(codes, masks, boxes_xyxy.astype(np.float64), strict=True):
        rows, columns, probabilities = dense(mask, box, size_hw)
        found = decode(code)
        window = found[rows, columns]
        assert found.sum() == window.sum(), f"rle: pixels far from the box {box}"
        wrong = (window != (probabilities > 0.5)) & (np.abs(probabilities - 0.5) > TIE)
        assert not wrong.any(), f"rle: {wrong.sum()} pixels differ in the box {box}"
    theirs = pasted_and_encoded(masks[:COMPARED], boxes_xyxy[:COMPARED], size_hw)
    ious = [coco_mask.iou([a], [b], [0])[0, 0] for a, b in zip(codes, theirs, strict=False)]
    return {"iou_with_theirs": float(np.mean(ious))}


def dense(mask: Array, box_xyxy: Array, size_hw: tuple[int, int]) -> tuple[slice, slice, Array]:
    """Rows and columns of a window 3 pixels wider than a box, and its probabilities, 0 where no pixel may be."""
    x1, y1, x2, y2 = box_xyxy
    rows = slice(max(int(y1) - 3, 0), min(int(y2) + 4, size_hw[0]))
    columns = slice(max(int(x1) - 3, 0), min(int(x2) + 4, size_hw[1]))
    y, x = np.mgrid[rows, columns] + 0.5
    bins = (y - y1) / (y2 - y1) * len(mask) - 0.5, (x - x1) / (x2 - x1) * len(mask) - 0.5
    inside = (y >= y1) & (y < y2) & (x >= x1) & (x < x2)
    return rows, columns, inside * map_coordinates(mask.astype(np.float64), bins, order=1, mode="nearest")


if __name__ == "__main__":
    main("rle", cases)
