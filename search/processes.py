"""The workers of one call as processes of their own, each with its share of the machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

Bury = Callable[[int, str], bool]
"""queues the trial of a dead process again, with what it died of; whether it had one"""
POLL_SECONDS = 0.2


def spawn(count: int, devices: Sequence[str], bury: Bury) -> int:
    """The exit code of `count` workers, processes with this one's command line, once all have ended.

    They are not in this one's process group: Ctrl-C reaches them once, from here. One that is killed with its trial is
    started again: a trial may do so only a few times.
    """

    def started(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, *sys.argv, "--worker", str(os.getpid())]
        return subprocess.Popen(command, env=_environment(number, count, devices), start_new_session=True)

    workers = {number: started(number) for number in range(1, count + 1)}
    codes: list[int] = []
    with _passed_on(workers) as asked:
        while workers:
            time.sleep(POLL_SECONDS)
            for number, process in list(workers.items()):
                if process.poll() is None:
                    continue
                code = workers.pop(number).returncode
                if code < 0 and _had_a_trial(process, number, bury) and not asked:
                    workers[number] = started(number)
                    if asked:  # meanwhile
                        workers[number].terminate()
                else:
                    codes.append(code)
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
def _passed_on(workers: Mapping[int, subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM go to the workers that there are then; this process waits for them. Gives what has come."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for each in workers.values():
            each.send_signal(number)

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _had_a_trial(process: subprocess.Popen[bytes], number: int, bury: Bury) -> bool:
    """Whether a worker was killed with its trial, which is to be run again; says so."""
    name = signal.Signals(-process.returncode).name
    death = f"killed ({name})" + (": probably out of memory" if name == "SIGKILL" else "")
    had = bury(process.pid, death)
    goes_on = "another one takes its place" if had else "the others, or the same command, go on"
    print(f"worker {number} was {death}; {goes_on}", flush=True)
    return had
