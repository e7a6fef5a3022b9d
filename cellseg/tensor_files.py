"""Files of torch.save -> tensors and plain values. Nothing in them is run: the one place where we load such a file."""

import warnings
from pathlib import Path
from pickle import UnpicklingError  # caught; nothing is unpickled  # nosec B403
from typing import Any

import torch


def read_tensors(path: Path) -> Any:
    """What a file holds, on the CPU. Raises ValueError where it holds objects, was cut off, or is another file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on pickles of other programs: the error tells enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of several kinds, with advice to load what could run code
        if isinstance(error, OSError) and error.filename:
            raise
        found = "another file, or pickled objects" if isinstance(error, UnpicklingError) else "a file that was cut off"
        raise ValueError(
            f"{path}: expected tensors and plain values in a file of torch.save, found {found}; name another file, or "
            "copy it again"
        ) from error
