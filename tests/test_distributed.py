import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from cellseg.distributed import gathered, joined, own_device, world

PROGRAM = """
import json, sys, torch
from cellseg.distributed import gathered, joined, world
with joined(torch.device("cpu")):
    gathered("here")  # who leaves earlier is missed elsewhere
    if world()[0] == 1 and "leave" in sys.argv:
        raise SystemExit(3)
    print(json.dumps([world(), gathered({"rank": world()[0]})]))
print(json.dumps(world()))
"""


def two_processes(*arguments):
    """Exit code, output and errors of the ranks 0 and 1 of one group."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *each) for process, each in zip(started, said, strict=True)]


def test_rank_0_gathers_what_each_process_has_and_the_group_is_left_again():
    (code_0, said_0, errors_0), (code_1, said_1, _) = two_processes()
    assert (code_0, code_1) == (0, 0), errors_0
    assert [json.loads(line) for line in said_0.splitlines()] == [[[0, 2], [{"rank": 0}, {"rank": 1}]], [0, 1]]
    assert [json.loads(line) for line in said_1.splitlines()] == [[[1, 2], None], [0, 1]]


def test_who_waits_for_a_process_that_has_left_is_told_and_does_not_hang():
    (code_0, _, errors_0), (code_1, _, _) = two_processes("leave")
    assert (code_0, code_1) == (1, 3)
    assert "ConnectionAbortedError: another process of this command ended early" in errors_0


@pytest.mark.parametrize("size", [None, "1"])
def test_a_process_alone_joins_nothing_and_gathers_its_own(monkeypatch, size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    with joined(torch.device("cpu")):
        assert not torch.distributed.is_initialized()
        assert world() == (0, 1)
        assert gathered("mine") == ["mine"]


def test_each_process_has_the_gpu_of_its_local_rank_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    named = [own_device(torch.device(name)) for name in ("cuda", "cuda:1", "cpu")]
    assert [str(device) for device in named] == ["cuda:3", "cuda:1", "cpu"]
    monkeypatch.delenv("LOCAL_RANK")
    assert str(own_device(torch.device("cuda"))) == "cuda"
