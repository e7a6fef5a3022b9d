"""Writes a procedural H&E-like data set in the competition's layout, for demos and tests.

The same seed writes the same bytes. No pixel of it comes from a slide.
"""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.random import Generator

from cellseg.codes import Array
from cellseg.label_maps import areas_of, boxes_of, codes_of
from cellseg.nuclei import KINDS
from cellseg.tissue import Scene, Slide, draw_slide, paint
from cellseg.whole_files import whole_folder

ENTRIES = ("train", "test_release", "test_image_name_to_ids.json", "test_truth.json")
SLIDES = 6
PIXELS_PER_CELL = 1100
MIXTURES = (  # shares of the four classes, image by image; some images lack a class
    (0.62, 0.26, 0.00, 0.12),
    (0.26, 0.66, 0.08, 0.00),
    (0.60, 0.26, 0.07, 0.07),
    (0.36, 0.52, 0.06, 0.06),
)
DENSE_MIXTURE = (0.25, 0.70, 0.03, 0.02)


def write(folder: Path, train: int = 24, test: int = 6, seed: int = 0) -> None:
    """Write train and test images into the folder, and the truth of the test images as test_truth.json.

    The test images depend on the seed and their number alone. Raises ValueError when the folder holds a data set
    already; a write that fails leaves nothing but the folder.
    """
    if train < 1 or test < 0:
        raise ValueError(f"sample: expected at least 1 training and 0 test images, got {train} and {test}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder, found a file; name a new folder")
    present = [name for name in ENTRIES if (folder / name).exists()]
    if present:
        raise ValueError(f"{folder}: already holds {', '.join(present)}; name a new folder")
    slide_rng, train_rng, test_rng = np.random.default_rng(seed).spawn(3)
    slides = [draw_slide(slide_rng) for _ in range(SLIDES)]
    with whole_folder(folder) as unfinished:
        _write_train(unfinished, _scenes(train, True, slides, train_rng), train_rng)
        _write_test(unfinished, _scenes(test, test >= 4, slides, test_rng), test_rng)


def _scenes(count: int, dense: bool, slides: Sequence[Slide], rng: Generator) -> list[Scene]:
    """What the images show: the first is crowded if dense; of four or more, the second is small and the third wide."""
    scenes = []
    for index in range(count):
        height, width = rng.integers(150, 330, 2).tolist()
        mixture, crowding = MIXTURES[index % len(MIXTURES)], rng.uniform(0.7, 1.3)
        if index == 0 and dense:
            height, width, mixture, crowding = 430, 440, DENSE_MIXTURE, 2.1
        elif index == 1 and count >= 4:
            height, width = int(rng.integers(60, 80)), int(rng.integers(60, 160))
        elif index == 2 and count >= 4:
            height, width = int(rng.integers(140, 240)), int(rng.integers(500, 600))
        cells = crowding * height * width / PIXELS_PER_CELL
        counts = [int(np.ceil(share * cells)) for share in mixture]
        scenes.append(Scene((height, width), counts, slides[index % len(slides)]))
    return scenes


def _name(rng: Generator) -> str:
    """A random uuid."""
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


def _write_train(folder: Path, scenes: Sequence[Scene], rng: Generator) -> None:
    """Write a folder per image: image.tif and a class file for each class that has cells."""
    for scene in scenes:
        place = folder / "train" / _name(rng)
        place.mkdir(parents=True)
        image, label_maps = paint(scene, rng)
        _write_image(place / "image.tif", image)
        for label, label_map in enumerate(label_maps, start=1):
            if label_map.any():
                tifffile.imwrite(
                    place / f"class{label}.tif", label_map.astype(np.float64), metadata=None, software=False
                )


def _write_test(folder: Path, scenes: Sequence[Scene], rng: Generator) -> None:
    """Write the test images, the list of their ids in mixed order, and their truth."""
    (folder / "test_release").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for scene, image_id in zip(scenes, rng.permutation(len(scenes)) + 1, strict=True):
        image, label_maps = paint(scene, rng)
        height, width = scene.size_hw
        images.append({"file_name": f"{_name(rng)}.tif", "id": int(image_id), "height": height, "width": width})
        _write_image(folder / "test_release" / images[-1]["file_name"], image)
        for label, label_map in enumerate(label_maps, start=1):
            annotations += _annotations(label_map, label, int(image_id), len(annotations) + 1)
    categories = [{"id": label, "name": kind.name} for label, kind in enumerate(KINDS, start=1)]
    truth = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "test_image_name_to_ids.json").write_text(json.dumps(images, indent=4))
    (folder / "test_truth.json").write_text(json.dumps(truth))


def _annotations(label_map: Array, label: int, image_id: int, first: int) -> list[dict[str, Any]]:
    """COCO annotations of one class of one image, numbered from first."""
    cells = zip(codes_of(label_map), areas_of(label_map), boxes_of(label_map).tolist(), strict=True)
    return [
        {
            "id": number,
            "image_id": image_id,
            "category_id": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(area),
            "iscrowd": 0,
            "segmentation": code,
        }
        for number, (code, area, (x1, y1, x2, y2)) in enumerate(cells, start=first)
    ]


def _write_image(path: Path, image: Array) -> None:
    """Write a tif as the competition has it: opaque RGBA, LZW with predictor, red and blue swapped."""
    opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
    swapped = np.concatenate([image[:, :, ::-1], opaque], axis=2)
    tifffile.imwrite(
        path,
        swapped,
        photometric="rgb",
        compression="lzw",
        predictor=True,
        extrasamples=["unassalpha"],
        metadata=None,
        software=False,
    )
