import pytest
import torch

from cellseg.device import device_of


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
