import pytest
import torch

from cellseg.device import computes_in_bf16, device_of, machine_of


def test_the_device_is_found_by_name():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="--device gpu: expected auto, cpu, cuda, cuda:N or mps"):
        device_of("gpu")


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda:1: this machine has no cuda device"):
        device_of("cuda:1")
    assert device_of("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("found", "expected"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)]
)
def test_a_cpu_computes_in_bfloat16_where_it_has_the_instructions(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert computes_in_bf16(torch.device("cpu")) is expected


def test_an_older_torch_that_cannot_tell_stays_with_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not computes_in_bf16(torch.device("cpu"))
    assert computes_in_bf16(torch.device("cuda:1"))


def test_a_machine_is_called_by_its_gpu_or_by_its_processor_and_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert machine_of(torch.device("cuda:1")) == "GPU 1"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Zen"}, raising=False)
    assert machine_of(torch.device("cpu")) == "Zen, 3 threads"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert machine_of(torch.device("cpu")) == "cpu, 3 threads"
