"""A step of training and one image's inference, ours and torchvision's, on any device."""

from collections.abc import Callable

import numpy as np
import torch
from pycocotools import mask as coco_mask
from scenes import masks_of, tissue
from step import our_losses, torchvision_model, trained

from cellseg.codes import Array
from cellseg.config import RunConfig
from cellseg.label_maps import target
from cellseg.loader import View, collate
from cellseg.model import CellRCNN, build_model, place
from cellseg.optimizer import optimizer_of
from cellseg.predict import predict

Run = Callable[[], object]
CELLS_PER_PIXEL = 700 / 1024**2


def training(config: RunConfig, device: torch.device) -> tuple[Run, Run, int]:
    """A step of each on the same crops, from memory of the host to changed weights, and how many crops those are."""
    side, batch = config.augment.crop or 512, config.train.batch
    pixels, maps = made(batch, side)
    images = [torch.from_numpy(np.ascontiguousarray(each.transpose(2, 0, 1))) for each in pixels]
    truths = [target(each) for each in maps]
    whole = collate([View(image, truth, "", 0) for image, truth in zip(images, truths, strict=True)])
    stacks = [[torch.from_numpy(part) for part in masks_of(each)] for each in maps]
    model, other = (network(config, device) for _ in range(2))
    others = torchvision_model(other, side).to(device)
    our_optimizer, their_optimizer = optimizer_of(model, config.train), optimizer_of(others, config.train)
    model.train()

    def ours() -> None:
        there = whole.to(device)
        trained(our_losses(model, there.images, there.targets), our_optimizer)

    def theirs() -> None:
        cells = [
            {"boxes": truth["boxes"], "masks": masks, "labels": labels}
            for truth, (masks, labels) in zip(truths, stacks, strict=True)
        ]
        there = [{name: value.to(device) for name, value in each.items()} for each in cells]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.amp):
            losses = others([each.to(device).float() / 255 for each in images], there)
        assert np.isfinite(float(sum(losses.values()).detach()))  # read in every step, as the reference does
        trained(losses, their_optimizer)

    return ours, theirs, batch


def inference(config: RunConfig, device: torch.device) -> tuple[Run, Run, int]:
    """One image to COCO codes by each."""
    side = config.predict.tile
    ((image,), _) = made(1, side)
    model, other = (network(config, device) for _ in range(2))
    others = torchvision_model(other, side).to(device).eval()
    others.rpn._pre_nms_top_n["testing"] = others.rpn._post_nms_top_n["testing"] = config.predict.proposals
    others.roi_heads.detections_per_img = config.predict.detections

    @torch.inference_mode()
    def theirs() -> object:
        pixels = torch.from_numpy(image.transpose(2, 0, 1)).to(device).float() / 255
        with torch.autocast(device.type, torch.bfloat16, enabled=config.train.amp):
            (found,) = others([pixels])
        masks = (found["masks"][:, 0] > config.predict.mask_threshold).cpu().numpy()
        return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]

    return lambda: predict(model, [(1, image)], config.predict), theirs, 1


def network(config: RunConfig, device: torch.device) -> CellRCNN:
    """A new network, placed as a training places it."""
    model = build_model(config.model)
    place(model, device, config.train)
    return model


def made(count: int, side: int) -> tuple[list[Array], list[Array]]:
    """Images and label maps of a dense data set."""
    cells = max(4, int(CELLS_PER_PIXEL * side**2))
    images, maps = zip(*(tissue(cells, (side, side), seed) for seed in range(count)), strict=True)
    return list(images), list(maps)
