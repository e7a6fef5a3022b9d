"""Claim: mask targets sampled from label maps, against torchvision's resized stack of N masks and its RoIAlign.

Oracle of our rule: each cell's full-size mask, bilinear at the bin centres, by scipy. torchvision samples another rule
(half-pixel boxes, means of samples), so that the two are compared by IoU.
"""

from collections.abc import Sequence
from functools import partial

from measure import Case, main

import numpy as np
import torch
import torch.nn.functional as F
from rows import Notes
from scenes import masks_of, tissue
from scipy.ndimage import map_coordinates
from torch import Tensor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from cellseg.label_maps import Target, target
from cellseg.mask_targets import Masked, mask_targets

CELLS = (70, 240, 700)
SIZE_HW = (1024, 1024)
POSITIVES = 128
SIDE = 28


def cases(quick: bool) -> list[Case]:
    """Images of more and more cells, of which as many are trained on."""
    sizes, size_hw = ((8,), (96, 96)) if quick else (CELLS, SIZE_HW)
    return [case_of(cells, size_hw) for cells in sizes]


def case_of(cells: int, size_hw: tuple[int, int]) -> Case:
    """The targets of POSITIVES proposals around the cells of one image."""
    _, label_maps = tissue(cells, size_hw)
    truth = target(label_maps)
    masks = torch.from_numpy(masks_of(label_maps)[0])
    rng = np.random.default_rng(1)
    matched = torch.from_numpy(rng.integers(0, cells, POSITIVES))
    sides = (truth["boxes"][:, 2:] - truth["boxes"][:, :2])[matched].repeat(1, 2)
    boxes = truth["boxes"][matched] + sides * torch.from_numpy(rng.uniform(-0.15, 0.15, (POSITIVES, 4))).float()
    image = torch.zeros_like(matched)
    masked = Masked([truth["label_maps"]], image, truth["labels"][matched], truth["ids"][matched])
    ours = partial(mask_targets, masked, boxes, SIDE)
    theirs = partial(resized_and_projected, masks, boxes, matched)
    return Case(cells, ours, theirs, lambda: compared(ours(), theirs(), truth, matched, boxes))


def resized_and_projected(masks: Tensor, boxes_xyxy: Tensor, matched: Tensor) -> Tensor:
    """Targets (P, M, M) as torchvision makes them: the line of its transform that resizes masks, then its RoI heads'.

    The scale is 1, the kindest to it: the masks have the network's size already. It resizes them all the same.
    """
    resized = F.interpolate(masks[:, None].float(), scale_factor=1.0, recompute_scale_factor=True)[:, 0].byte()
    projected: Tensor = project_masks_on_boxes(resized, boxes_xyxy, matched, SIDE)
    return projected


def compared(ours: Tensor, theirs: Tensor, truth: Target, matched: Tensor, boxes_xyxy: Tensor) -> Notes:
    """How far ours is from the oracle, and the mean IoU with torchvision's targets."""
    cells = zip(truth["labels"][matched].tolist(), truth["ids"][matched].tolist(), boxes_xyxy.tolist(), strict=True)
    maps = truth["label_maps"].numpy()
    expected = np.stack([dense(maps[label - 1] == k, box) for label, k, box in cells])
    difference = float(np.abs(ours.numpy() - expected).max())
    assert difference < 1e-3, f"targets: {difference} from the oracle"  # coordinates near 1000 in float32
    ious = ((ours > 0.5) & (theirs > 0.5)).sum((1, 2)) / ((ours > 0.5) | (theirs > 0.5)).sum((1, 2))
    return {"to_oracle": difference, "iou_with_theirs": float(ious.mean())}


def dense(mask: np.ndarray, box_xyxy: Sequence[float]) -> np.ndarray:
    """The target (M, M) of one full-size mask (H, W)."""
    x1, y1, x2, y2 = box_xyxy
    bins = (np.arange(SIDE) + 0.5) / SIDE
    ys, xs = np.meshgrid(y1 + bins * (y2 - y1) - 0.5, x1 + bins * (x2 - x1) - 0.5, indexing="ij")
    found: np.ndarray = map_coordinates(mask.astype(np.float64), (ys, xs), order=1, mode="nearest")
    return found


if __name__ == "__main__":
    main("targets", cases)
