"""Errors of the machine say what to do."""

import errno
import os

import pytest
import torch

from cellseg.user_errors import MENDED, in_one_line


@pytest.mark.parametrize("number", MENDED)
def test_an_error_of_the_disk_names_the_file_and_the_cure(number):
    line = in_one_line(OSError(number, os.strerror(number), "runs/best.pt"))
    assert line == f"runs/best.pt: {MENDED[number]}"
    assert ";" in line


def test_another_error_of_the_system_keeps_its_words():
    assert in_one_line(OSError(errno.EIO, "Input/output error", "a")) == "[Errno 5] Input/output error: 'a'"
    assert (
        in_one_line(FileNotFoundError("a: no such file; is the name right?")) == "a: no such file; is the name right?"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_ran_out_says_what_to_make_smaller(error):
    line = in_one_line(error)
    assert line.startswith("out of memory; a training takes less with a smaller --train.batch, --augment.crop")
    assert "\n" not in line


def test_our_own_mistakes_are_not_told_as_the_user_s():
    assert in_one_line(RuntimeError("shapes do not match")) is None
    assert in_one_line(TypeError("no")) is None
