"""Made-up images, cells and detections of any number: what the claims are measured on.

Letters: C classes, H height, W width, N cells or detections, M side of a mask.
"""

import numpy as np

from cellseg.codes import Array

CLASSES = 4
CLASS_SHARES = (0.05, 0.25, 0.5, 0.2)


def tissue(cells: int, size_hw: tuple[int, int], seed: int = 0) -> tuple[Array, Array]:
    """An image (H, W, 3) uint8 of noise, and label maps (C, H, W) of that many elliptic cells on a jittered grid."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    columns = int(np.ceil(np.sqrt(cells * width / height)))
    rows = -(-cells // columns)
    pitch = np.array([height / rows, width / columns])
    label_maps = np.zeros((CLASSES, height, width), np.int32)
    for k in range(cells):
        centre = (np.array(divmod(k, columns)) + 0.5 + rng.uniform(-0.08, 0.08, 2)) * pitch
        inside, top, left = _ellipse(centre, pitch.min() * rng.uniform(0.25, 0.42, 2), rng.uniform(0, np.pi), size_hw)
        plane = label_maps[rng.choice(CLASSES, p=CLASS_SHARES)]
        plane[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = k + 1
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), label_maps


def _ellipse(centre: Array, radii: Array, angle: float, size_hw: tuple[int, int]) -> tuple[Array, int, int]:
    """The pixels (h, w) bool of an ellipse within the image, and the row and column of the first."""
    reach = radii.max() + 1
    top, left = np.maximum(np.floor(centre - reach), 0).astype(int)
    bottom, right = np.minimum(np.ceil(centre + reach), size_hw).astype(int)
    y, x = np.mgrid[top:bottom, left:right] + 0.5 - centre[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1, int(top), int(left)


def masks_of(label_maps: Array) -> tuple[Array, Array]:
    """Full-size masks (N, H, W) uint8 of the cells of label maps, as others want them, and their classes (N,)."""
    planes = [label_map == k for label_map in label_maps for k in np.unique(label_map[label_map > 0])]
    counts = [len(np.unique(label_map[label_map > 0])) for label_map in label_maps]
    masks = np.array(planes, np.uint8).reshape(-1, *label_maps.shape[1:])
    return masks, np.repeat(np.arange(1, len(label_maps) + 1), counts)


def detections(count: int, size_hw: tuple[int, int], side: int = 28, seed: int = 0) -> tuple[Array, Array]:
    """Soft blobs (N, M, M) float32, 0..1, and their boxes (N, 4) float32 xyxy of 12 to 65 pixels, in the median 26."""
    rng = np.random.default_rng(seed)
    sides = np.clip(np.exp(rng.normal(np.log(26), 0.35, (count, 2))), 12, 65)
    corners = rng.uniform(0, np.array(size_hw[::-1]) - sides)
    centres = (np.arange(side) + 0.5) / side - 0.5
    angle = np.arctan2(centres[:, None], centres[None, :])
    radius = np.hypot(centres[:, None], centres[None, :])
    lobes, phases = rng.uniform(0, 0.06, count), rng.uniform(0, 2 * np.pi, count)
    outline = 0.42 + lobes[:, None, None] * np.sin(3 * angle + phases[:, None, None])
    masks = 1 / (1 + np.exp((radius - outline) / 0.03))
    return masks.astype(np.float32), np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
