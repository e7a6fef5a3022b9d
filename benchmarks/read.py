"""Claim: checked images and label maps cost little more than the decoding of their files, the lower limit.

Ours refuses broken files, drops alpha, checks that ids are whole numbers and unique; theirs is tifffile.imread alone.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from measure import Case, main

import numpy as np
import tifffile
from rows import Notes

from cellseg.annotations import ClassFiles
from cellseg.codes import Array
from cellseg.images import read_image
from cellseg.layout import Record, training_images
from cellseg.sample import write

SHARED = Path(__file__).parents[2] / "shared" / "data"
FOLDERS = ("hw3_sample", "monusac", "consep")
CLASSES = 4
Images = Sequence[tuple[Record, ClassFiles]]


def cases(quick: bool) -> list[Case]:
    """The genuine image, three and 26 images; made-up ones of the same kind where the genuine are not here."""
    if quick or not SHARED.is_dir():
        if not quick:
            print(f"{SHARED}: not here, so that a made-up data set is read instead")
        return [case_of(made_up(count), "made up") for count in ((1,) if quick else (1, 3, 24))]
    return [case_of(SHARED / name, name) for name in FOLDERS]


def made_up(images: int) -> Path:
    """A new folder with a made-up data set."""
    folder = Path(mkdtemp(prefix="cellseg-read-"))
    write(folder, train=images, test=0)
    return folder


def case_of(folder: Path, name: str) -> Case:
    """All training images of a folder."""
    images = training_images(folder, CLASSES)
    pixels = sum(record.size_hw[0] * record.size_hw[1] for record, _ in images)
    return Case(
        len(images),
        partial(read, images),
        partial(decoded, images),
        partial(compared, images),
        {"data": name, "megapixels": pixels / 1e6},
    )


def read(images: Images) -> list[tuple[Array, Array]]:
    """Images (H, W, 3) and label maps (C, H, W)."""
    return [(read_image(record.image_path), cells.label_maps(record.size_hw)) for record, cells in images]


def decoded(images: Images) -> list[tuple[Array, dict[int, Array]]]:
    """Samples of each image, and of each class file, as they are stored."""
    return [
        (tifffile.imread(record.image_path), {label: tifffile.imread(path) for label, path in cells.paths.items()})
        for record, cells in images
    ]


def compared(images: Images) -> Notes:
    """The same colours, and the same cells but for the numbers they go by."""
    for (image, label_maps), (samples, planes) in zip(read(images), decoded(images), strict=True):
        assert (image == samples[:, :, :3]).all(), "read: other colours"
        for label, label_map in enumerate(label_maps, start=1):
            pairs = np.unique(np.stack([label_map.ravel(), planes.get(label, label_map * 0).ravel()]), axis=1)
            one_to_one = all(len(np.unique(side)) == pairs.shape[1] for side in pairs)
            assert one_to_one, f"read: other cells of class {label}"
    return {}


if __name__ == "__main__":
    main("read", cases)
