"""Errors of the machine say what to do."""

import errno
import os
import re

import pytest
import torch

from cellseg.config import RunConfig
from cellseg.config_fields import flat
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
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_ran_out_says_what_to_make_smaller(error):
    line = in_one_line(error)
    assert line.startswith("out of memory; ")
    options = re.findall(r"--(\w+\.[\w-]+)", line)
    assert {"train.batch", "augment.crop", "predict.detections", "predict.tile-batch"} <= set(options)
    assert {name.replace("-", "_") for name in options} <= flat(RunConfig()).keys()
    assert "\n" not in line


def test_a_full_disk_is_told_though_what_follows_fails_of_it_too():
    error = ValueError("MLflow: database or disk is full; is its store there?")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device", "runs/last.pt")
    assert in_one_line(error) == f"runs/last.pt: {MENDED[errno.ENOSPC]}"


def test_a_database_on_a_full_disk_is_told_as_such():
    error = ValueError("--storage sqlite:///a.db: lost on the way (database or disk is full); once it is back, …")
    assert in_one_line(error) == f"--storage sqlite:///a.db: {MENDED[errno.ENOSPC]}"
    error = ValueError("MLflow: (raised as a result of autoflush)")
    error.__cause__ = RuntimeError("database or disk is full")
    assert in_one_line(error) == f"MLflow: {MENDED[errno.ENOSPC]}"


def test_our_own_mistakes_are_not_told_as_the_user_s():
    assert in_one_line(RuntimeError("shapes do not match")) is None
    assert in_one_line(TypeError("no")) is None
