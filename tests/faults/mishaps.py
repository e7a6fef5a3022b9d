"""Faults that befall a process from within: a full disk, no memory, no power over the files of others."""

import ctypes
import os
import resource
import signal
from pathlib import Path

import torch

FILLER = "filler"
LEFT = 2**26
HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)
"""of capset(2): its third version, for this process"""
POWERS_OVER_FILES = 0b1111
"""of root: to change the owner of others' files, read and write them, and act as their owner: capabilities(7)"""


def fill_disk(*_):
    """Write to a file in this folder until its disk is full."""
    with Path(FILLER).open("wb", buffering=0) as file:
        for size in (2**20, 2**10, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def take_memory(*_):
    """Let this process have hardly more memory than it has, and ask for more.

    With none at all, a thread that Python starts may never tell that it has begun.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + LEFT,) * 2)
    torch.empty(2 * LEFT, dtype=torch.uint8)


def pause(*_):
    """Stop this process until it gets SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def give_up_powers():
    """Be kept out of what others own, as root is not."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(HEADER, held):
        raise OSError(ctypes.get_errno(), "capget")
    for first in range(3):  # effective, permitted, inheritable
        held[first] &= ~POWERS_OVER_FILES
    if libc.capset(HEADER, held):
        raise OSError(ctypes.get_errno(), "capset")
