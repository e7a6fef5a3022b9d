"""The workers of one call as processes of their own, each with its share of the machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


def spawn(count: int, devices: Sequence[str]) -> int:
    """The exit code of `count` workers, processes with this one's command line, once all have ended.

    They are not in this one's process group: Ctrl-C reaches them once, from here.
    """
    command = [sys.executable, *sys.argv]
    workers = {
        subprocess.Popen(
            [*command, "--worker", str(os.getpid())], env=_environment(number, count, devices), start_new_session=True
        ): number
        for number in range(1, count + 1)
    }
    with _passed_on(list(workers)):
        codes = [_ended(process, number) for process, number in workers.items()]
    if 0 in codes:  # this worker has seen the last trial end
        return 0
    return next((code for code in codes if code > 0), 1)


def gpus(device: str) -> list[str]:
    """The GPUs of this machine by the names that CUDA_VISIBLE_DEVICES has; none where the device is another."""
    import torch

    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _environment(number: int, count: int, devices: Sequence[str]) -> dict[str, str]:
    """A worker's own GPU where there are several, its share of the cores, and no progress bar."""
    threads = max(1, (os.cpu_count() or 1) // count)
    own = {"CUDA_VISIBLE_DEVICES": devices[(number - 1) % len(devices)]} if len(devices) > 1 else {}
    return {"OMP_NUM_THREADS": str(threads), **os.environ, **own, "TQDM_DISABLE": "1"}


@contextmanager
def _passed_on(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the workers; this process waits for them."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for each in workers:
            each.send_signal(number)

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ended(process: subprocess.Popen[bytes], number: int) -> int:
    code = process.wait()
    if code < 0:
        name = signal.Signals(-code).name
        print(f"worker {number} was killed ({name}); the others, or the same command, go on with its trial", flush=True)
    return code
