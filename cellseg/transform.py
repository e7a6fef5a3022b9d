"""Images and Targets as data sets have them -> a batch as the network takes it.

Letters: B images, H x W size of an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from cellseg.config import ModelConfig
from cellseg.label_maps import NetworkTarget, Target


class CellTransform(nn.Module):
    """Normalises images and pads them into a batch; puts the boxes of Targets on network pixels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.divisor = config.coarsest_stride
        self.memory_format = torch.contiguous_format
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(config.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.image_std)[:, None, None], persistent=False)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None, seeds: Sequence[int] | None = None
    ) -> tuple[ImageList, list[NetworkTarget] | None]:
        """The batch of images (3, H, W) uint8, and their NetworkTargets."""
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (-(-max(side) // self.divisor) * self.divisor for side in zip(*sizes, strict=True))
        pixels = images[0].new_zeros(len(images), 3, height, width).to(memory_format=self.memory_format)
        for place, image in zip(pixels, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        batch = (pixels.float() / 255 - self.mean) / self.std
        for place, size in zip(batch, sizes, strict=True):
            if size != (height, width):
                place[:, size[0] :], place[:, :, size[1] :] = 0, 0
        if targets is None:
            return ImageList(batch, sizes), None
        given: Sequence[int | None] = seeds or [None] * len(sizes)
        return ImageList(batch, sizes), [_on_network(*each) for each in zip(targets, sizes, given, strict=True)]


def _on_network(target: Target, size_hw: tuple[int, int], seed: int | None) -> NetworkTarget:
    map_height, map_width = target["label_maps"].shape[-2:]
    scale = target["boxes"].new_tensor([size_hw[1] / map_width, size_hw[0] / map_height])
    generator = None if seed is None else torch.Generator(target["boxes"].device).manual_seed(seed)
    return NetworkTarget(
        boxes=target["boxes"] * scale.repeat(2),
        labels=target["labels"],
        ids=target["ids"],
        label_maps=target["label_maps"],
        ignored=target["ignored"] * scale.repeat(2),
        map_scale=scale,
        generator=generator,
    )
