"""Many tensors in one buffer, which processes, pinned memory and a GPU take as quickly as a single tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

ALIGNMENT = 16
"""bytes; a tensor of any type may begin at a multiple of it"""
Part = tuple[torch.dtype, tuple[int, ...]]
"""type and shape of a tensor"""


@dataclass(frozen=True)
class Packed:
    """Tensors, one after the other."""

    buffer: Tensor  # (bytes,) uint8
    parts: tuple[Part, ...]

    def to(self, device: torch.device) -> "Packed":
        """The same there; from pinned memory while the CPU goes on."""
        return Packed(self.buffer.to(device, non_blocking=True), self.parts)

    def pin_memory(self) -> "Packed":
        """The same in memory that a GPU reads by itself."""
        return Packed(self.buffer.pin_memory(), self.parts)

    def tensors(self) -> list[Tensor]:
        """Views of the buffer, as they were packed."""
        starts = _starts(self.parts)
        return [
            self.buffer[start : start + _bytes(dtype, shape)].view(dtype).view(shape)
            for start, (dtype, shape) in zip(starts, self.parts, strict=False)
        ]


def packed(tensors: Sequence[Tensor]) -> Packed:
    """A copy of the tensors, which must lie on the CPU."""
    parts = tuple((each.dtype, tuple(each.shape)) for each in tensors)
    whole = Packed(torch.empty(_starts(parts)[-1], dtype=torch.uint8), parts)
    for place, each in zip(whole.tensors(), tensors, strict=True):
        place.copy_(each)
    return whole


def _starts(parts: Sequence[Part]) -> list[int]:
    """Where each part begins, and the end of all."""
    return list(accumulate((-(-_bytes(*part) // ALIGNMENT) * ALIGNMENT for part in parts), initial=0))


def _bytes(dtype: torch.dtype, shape: Sequence[int]) -> int:
    return dtype.itemsize * prod(shape)
