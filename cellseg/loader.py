"""Training views of a data set, in batches that depend on the seed and the epoch alone.

Letters: B images of a batch.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from cellseg.augment import random_view
from cellseg.codes import Array
from cellseg.config import RunConfig
from cellseg.copy_paste import Donors, donors_of, pasted
from cellseg.dataset import DataSet
from cellseg.distributed import world
from cellseg.images import recolored
from cellseg.label_maps import Target, areas_by_id, target, without_slivers
from cellseg.packing import Packed, packed

TARGET = tuple(Target.__annotations__)
"""names of what a Target holds"""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one forward pass trains on; `images` and `targets` are views of what is packed."""

    packed: Packed
    names: list[str]
    seeds: list[int]
    """of what the losses sample from each image"""

    @cached_property
    def _tensors(self) -> list[Tensor]:
        return self.packed.tensors()

    @property
    def images(self) -> list[Tensor]:
        """B of (3, H, W) uint8, sizes differ."""
        return self._tensors[: len(self.names)]

    @cached_property
    def targets(self) -> list[Target]:
        """Of each image."""
        values = iter(self._tensors[len(self.names) :])
        return [Target(**{name: next(values) for name in TARGET}) for _ in self.names]  # type: ignore[typeddict-item]

    def to(self, device: torch.device) -> "Batch":
        """The same there; from pinned memory while the CPU goes on."""
        return replace(self, packed=self.packed.to(device))

    def pin_memory(self) -> "Batch":
        """The same in memory that a GPU reads by itself; the loader asks for it."""
        return replace(self, packed=self.packed.pin_memory())


class View(NamedTuple):
    """What one image shows in one step."""

    image: Tensor  # (3, H, W) uint8
    target: Target
    name: str
    seed: int


class TrainingViews(Dataset[View]):
    """Random views, asked for by (epoch, draw, image): the same three give the same view in any worker."""

    def __init__(self, data: DataSet, config: RunConfig, indices: Sequence[int] = ()) -> None:
        """Of any image of the data; cells that are pasted come from the images with these indices."""
        self.data = data
        self.config = config
        self.indices = indices
        self._areas: dict[int, dict[int, int]] = {}

    @cached_property
    def donors(self) -> Donors:
        """The cells that may be pasted, found once in each process."""
        return donors_of(self.data, self.indices, self.config.dataset.minimum_area)

    def __getitem__(self, key: tuple[int, int, int]) -> View:
        """The view of an epoch, a draw and an image."""
        epoch, draw, index = key
        image = self.data.image(index)
        seed = np.random.SeedSequence([self.config.seed, epoch, draw, index])
        scale = self.config.predict.scale_of(image.shape[:2])
        augment = self.config.augment
        paste = partial(pasted, donors=self.donors, index=index, config=augment) if augment.copy_paste else None
        label_maps = self.data.label_maps(index)
        view, window = random_view(image, label_maps, augment, scale, seed, paste)
        view = recolored(view, color=self.config.dataset.color)  # a stain perturbed in gray would bring colour back
        pixels = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
        least = self.config.dataset.minimum_area
        cells = target(window, 1 if augment.least_share else least)
        if augment.least_share:
            if index not in self._areas:
                self._areas[index] = areas_by_id(label_maps)
            cells = without_slivers(cells, self._areas[index], augment.least_share, least)
        (sampling,) = seed.spawn(1)[0].generate_state(1).tolist()
        return View(pixels, cells, self.data.records[index].name, sampling)


class EpochBatches(Sampler[list[tuple[int, int, int]]]):
    """This process's batches of one epoch; which images the epoch shows follows from seed and epoch.

    Processes share out the draws of each step: the first takes the first `batch` of them, the next those that follow.
    """

    def __init__(self, indices: Sequence[int], weights: Array, config: RunConfig) -> None:
        self.indices = np.asarray(indices)
        self.weights = weights
        self.config = config
        self.epoch = 0

    def __len__(self) -> int:
        return forward_passes(len(self.indices), self.config)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        batch = self.config.train.batch
        rank, size = world()
        order = self._drawn(len(self) * batch * size)
        for start in range(rank * batch, len(order), batch * size):
            yield [(self.epoch, draw, int(order[draw])) for draw in range(start, start + batch)]

    def _drawn(self, count: int) -> Array:
        """Images by weight, each as often as its share of count says, rounded up or down (systematic sampling)."""
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, self.epoch]))
        shuffled = rng.permutation(len(self.indices))
        ends = np.cumsum(self.weights[shuffled])
        points = (rng.random() + np.arange(count)) / count * ends[-1]
        order: Array = rng.permutation(self.indices[shuffled[np.searchsorted(ends[:-1], points, side="right")]])
        return order


def forward_passes(images: int, config: RunConfig) -> int:
    """Batches that each process takes in an epoch, a multiple of the accumulation."""
    accumulation = config.train.accumulation
    one_pass = -(-images // (config.train.batch * accumulation * world()[1]))
    return (config.train.steps_per_epoch or one_pass) * accumulation


def training_loader(data: DataSet, indices: Sequence[int], weights: Array, config: RunConfig) -> DataLoader[Batch]:
    """A loader of Batches; set `loader.batch_sampler.epoch` before each epoch."""
    workers = config.dataset.workers
    return _Loader(
        TrainingViews(data, config, indices),  # type: ignore[arg-type]
        batch_sampler=EpochBatches(indices, weights, config),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_interrupts_to_the_training,
        generator=torch.Generator(),  # else workers change how many numbers the training draws, and so a resumed one
    )


class _Loader(DataLoader[Batch]):
    """Its workers start with interrupts blocked: one that comes before a worker can ignore it would end the worker."""

    def __iter__(self) -> _BaseDataLoaderIter:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_training(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; a training that ends its epoch first still needs these."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def collate(views: Sequence[View]) -> Batch:
    """Views side by side, unpadded."""
    images, targets, names, seeds = zip(*views, strict=True)
    values = [each[name] for each in targets for name in TARGET]
    return Batch(packed([*images, *values]), list(names), list(seeds))
