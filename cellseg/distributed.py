"""The processes of one command as torchrun starts them; a process alone is a group of one."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as group
from torch import Tensor, nn

T = TypeVar("T")
PATIENCE = timedelta(days=1)
"""how long a process waits for a slower one: gloo's own half hour is less than a slide may take"""


def world() -> tuple[int, int]:
    """This process's rank and the number of processes in the group that it has joined; (0, 1) without one."""
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1


def own_device(device: torch.device) -> torch.device:
    """The device of this process: `cuda` without a number is the GPU of the process's rank on its machine."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """In the group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe; without them nothing happens.

    Tensors on CUDA go through nccl, all others and objects through gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    before = signal.signal(signal.SIGTERM, _leave)
    group.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield
    group.destroy_process_group()  # not after an error: the others may wait for this process, and it would for them
    signal.signal(signal.SIGTERM, before)


def _leave(number: int, _frame: object) -> NoReturn:
    """End as after an error, so that files and runs are closed: torchrun stops all processes when one has ended."""
    raise SystemExit(128 + number)


def mean_count(count: Tensor) -> Tensor:
    """The mean of a count () over the processes, for all of them to divide their sums by.

    The mean of such quotients over the processes is the quotient that one process with all images has. Where there is
    nothing to count the sums are 0, and are divided by one.
    """
    return mean_over_processes(count).clamp(min=1 / world()[1])


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over the processes."""
    size = world()[1]
    if size == 1:
        return values
    total = values.clone()
    with _one_for_all():
        group.all_reduce(total)
    return total / size


def gathered(values: Any) -> list[Any] | None:
    """On rank 0 the values of all processes by rank, else None. Raises ConnectionAbortedError."""
    rank, size = world()
    if size == 1:
        return [values]
    everyone: list[Any] | None = [None] * size if rank == 0 else None
    with _one_for_all():
        group.gather_object(values, everyone)
    return everyone


def from_first(value: T) -> T:
    """The value that rank 0 has. Raises ConnectionAbortedError."""
    if world()[1] == 1:
        return value
    held = [value]
    with _one_for_all():
        group.broadcast_object_list(held)
    return held[0]


def state_from_first(module: nn.Module) -> None:
    """Give the module, in all processes, the weights and statistics that it has on rank 0."""
    if world()[1] > 1:
        with _one_for_all():
            for each in module.state_dict().values():
                group.broadcast(each, 0)


@contextmanager
def _one_for_all() -> Iterator[None]:
    """Raises ConnectionAbortedError where another process has ended early."""
    try:
        yield
    except RuntimeError as error:  # what gloo raises for a lost connection
        raise ConnectionAbortedError(
            "another process of this command ended early; its own message tells why"
        ) from error
