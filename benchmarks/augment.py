"""Claim: a training view and its boxes from label maps, against albumentations on a list of N masks, as people do it.

Geometry is a random window, flips and quarter turns on both sides; the rows "with colour" add the same objects of
jitter, blur and noise to both. Theirs starts with the N masks made; making them is not timed.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from measure import Case, main

import albumentations as A
import numpy as np
import torch
from rows import Notes
from scenes import masks_of, tissue
from torch import Tensor
from torchvision.ops import masks_to_boxes

from cellseg import augment
from cellseg.codes import Array
from cellseg.config import AugmentConfig
from cellseg.label_maps import target

SIZES = ((40, (200, 240)), (161, (400, 482)), (700, (800, 800)))
"""cells and height, width; the second is the genuine HW3 image's"""
WINDOW = 0.9
"""side of the window, as a share of the image's shorter one"""
SEEDS = 8


def cases(quick: bool) -> list[Case]:
    """Larger and larger images, without and with changes of colour."""
    sizes = ((6, (60, 72)),) if quick else SIZES
    return [case_of(cells, size_hw, colour) for colour in (False, True) for cells, size_hw in sizes]


def case_of(cells: int, size_hw: tuple[int, int], colour: bool) -> Case:
    """One view of one image."""
    image, label_maps = tissue(cells, size_hw)
    side = int(WINDOW * min(size_hw))
    config = AugmentConfig(
        crop=side,
        zoom_jitter=1.0,
        color_jitter=0.15 if colour else 0.0,
        stain_jitter=0.0,
        blur=1.0 if colour else 0.0,  # always on: a median over rare events would tell little
        noise=1.0 if colour else 0.0,
    )
    masks = list(masks_of(label_maps)[0])
    geometry = [A.RandomCrop(side, side), A.HorizontalFlip(), A.VerticalFlip(), A.RandomRotate90(p=1.0)]
    theirs = A.Compose([*geometry, *augment._recolorings(config)])
    seeds = iter(np.random.SeedSequence(0).spawn(10_000))

    def ours() -> object:
        view, window = augment.random_view(image, label_maps, config, 1.0, next(seeds))
        return view, target(window)

    return Case(
        cells,
        ours,
        lambda: viewed(theirs, image, masks),
        lambda: compared(label_maps, masks, config),
        {"variant": "with colour" if colour else "geometry", "image": f"{size_hw[0]} x {size_hw[1]}"},
    )


def viewed(transform: A.Compose, image: Array, masks: list[Array]) -> tuple[Array, Tensor, Tensor]:
    """The view, the masks (N, h, w) that it shows and their boxes (N, 4), as in torchvision's tutorial."""
    view = transform(image=image, masks=masks)
    stack = torch.from_numpy(np.stack(view["masks"]))
    stack = stack[stack.flatten(1).any(dim=1).bool()]
    return view["image"], stack, masks_to_boxes(stack)


def compared(label_maps: Array, masks: list[Array], config: AugmentConfig) -> Notes:
    """Both give the same pixels, masks and boxes for the windows and turns of some seeds; colours are left out."""
    plain = AugmentConfig(crop=config.crop, zoom_jitter=1.0, color_jitter=0, stain_jitter=0, blur=0, noise=0)
    y, x = np.mgrid[: label_maps.shape[1], : label_maps.shape[2]]
    places = np.dstack([y % 256, x % 256, y // 256 * 16 + x // 256]).astype(np.uint8)  # a pixel's colour: where it was
    for seed in np.random.SeedSequence(1).spawn(SEEDS):
        view, window = augment.random_view(places, label_maps, plain, 1.0, seed)
        ours = target(window)
        their_view, their_masks, their_boxes = viewed(geometry_of(view), places, masks)
        planes = ours["label_maps"][ours["labels"] - 1]
        assert (their_view == view).all(), "augment: another view"
        assert torch.equal(planes == ours["ids"][:, None, None], their_masks.bool()), "augment: other masks"
        half_open = their_boxes + torch.tensor([0, 0, 1, 1])
        assert torch.equal(ours["boxes"], half_open), "augment: other boxes"
    return {}


def geometry_of(places: Array) -> A.Compose:
    """The transform of albumentations that gives a view whose colours tell where its pixels were."""
    code = places.astype(int)
    y, x = code[:, :, 0] + code[:, :, 2] // 16 * 256, code[:, :, 1] + code[:, :, 2] % 16 * 256
    turned = y[0, 0] == y[-1, 0]
    if turned:
        y, x = y.T, x.T
    window = A.Crop(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    flips = [A.VerticalFlip(p=float(y[0, 0] > y[-1, 0])), A.HorizontalFlip(p=float(x[0, 0] > x[0, -1]))]
    return A.Compose([window, *flips, A.Transpose(p=float(turned))])


if __name__ == "__main__":
    main("augment", cases)
