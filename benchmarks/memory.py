"""The peak memory of one call, as a forked child's resident pages."""

import ctypes
import gc
import os
import resource
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

Run = Callable[[], object]
SMALLEST_MB = 0.1
"""memory below it cannot be told from the noise of the allocator"""


def peak_mb(run: Run, warm_up: Run | None = None) -> float:
    """MB that one call adds at its peak to a process that has made the warm-up call, at least SMALLEST_MB.

    Of a forked child, in its resident pages: tracemalloc does not see what torch and OpenCV allocate. The warm-up loads
    code, which counts as memory too. Raises RuntimeError where a call fails.
    """
    _give_back()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _tell_peak(run, warm_up, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not told:
        raise RuntimeError(f"memory: the measured call failed with status {status}; its error stands above")
    return max(float(told), SMALLEST_MB)


def _give_back() -> None:
    """Return freed pages to the system: the next call would use them unseen."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _tell_peak(run: Run, warm_up: Run | None, writing: int) -> None:
    """Call in a child, write what it added at its peak, and leave without the parent's clean-up."""
    code = 1
    try:
        torch.set_num_threads(1)  # threads do not survive a fork
        if warm_up:
            warm_up()
            _give_back()
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten: man 5 proc
        before = memory_mb()
        run()
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3 - before  # from KiB
        os.write(writing, f"{added:.3f}".encode())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def memory_mb(name: str = "VmRSS") -> float:
    """VmRSS, what this process holds, or VmHWM, the most that it has held."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1.024e-3


def free_mb() -> float:
    """What the machine has left."""
    return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1.024e-3
