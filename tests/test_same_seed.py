import pytest
import torch
from same_seed import spread
from scripts import ROOT, run

SCRIPT = ROOT / "benchmarks" / "same_seed.py"


def test_on_a_cpu_one_seed_gives_one_network_with_and_without_workers(tmp_path):
    said = run(tmp_path, SCRIPT, "--device", "cpu", "--quick").splitlines()
    assert said[0].startswith("2 steps on cpu, seed 0: AP50 ")
    assert [line.split(":")[0] for line in said[1:]] == ["again", "with two workers"]
    assert all(line.endswith("weights apart by 0 of their tensor's largest at most") for line in said[1:])


def test_a_difference_is_a_share_of_the_largest_weight():
    first = {"a": torch.tensor([1.0, -4.0]), "b": torch.zeros(2)}
    assert spread(first, first) == 0
    assert spread(first, {"a": torch.tensor([1.5, -4.0]), "b": torch.zeros(2)}) == 0.125


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_one_line(tmp_path):
    assert run(tmp_path, SCRIPT, code=2) == "same_seed: expected a CUDA device, found none; try --device cpu\n"
