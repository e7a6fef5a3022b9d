"""Where a network runs."""

import torch


def device_of(name: str) -> torch.device:
    """The device of a name; auto is cuda where there is one, else cpu. Raises ValueError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.partition(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in available:
        raise ValueError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    if not available[kind]:
        raise ValueError(f"--device {name}: this machine has no {kind} device that torch can use; try --device cpu")
    return torch.device(name)
