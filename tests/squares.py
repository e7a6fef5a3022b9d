"""Four training images of square cells."""

from pathlib import Path

import numpy as np
import tifffile

PURPLE, PINK = (110, 60, 170), (235, 200, 225)


def write_squares(root: Path) -> Path:
    """The folder, with train/."""
    for number in range(4):
        place = root / "train" / f"image{number}"
        place.mkdir(parents=True)
        label_maps = squares(number)
        image = np.where(label_maps.any(axis=0)[:, :, None], PURPLE, PINK).astype(np.uint8)
        tifffile.imwrite(place / "image.tif", image, photometric="rgb")
        for label, label_map in enumerate(label_maps, start=1):
            if label_map.any():
                tifffile.imwrite(place / f"class{label}.tif", label_map.astype(np.float64), metadata=None)
    return root


def squares(number: int) -> np.ndarray:
    """Label maps (4, 72, 80) of two rows of four squares of 12 pixels, a little further right in each image."""
    label_maps = np.zeros((4, 72, 80), np.int32)
    for cell in range(8):
        y, x = 8 + 34 * (cell // 4), 2 * number + 20 * (cell % 4)
        label = (3 if cell == 0 else 4 if cell == 1 else 1) if number == 3 and cell < 2 else 1 + cell % 2
        label_maps[label - 1, y : y + 12, x : x + 12] = cell + 1
    return label_maps
