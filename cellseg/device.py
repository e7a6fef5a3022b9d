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


def machine_of(device: torch.device) -> str:
    """What it is called, with the threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") if hasattr(torch.cpu, "get_capabilities") else None
    return f"{name or device.type}, {torch.get_num_threads()} threads"


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there; a CPU without the instructions emulates it slowly."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # from torch 2.12
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "cuda"
