"""How the workers of one call share a machine; test_workers.py runs them."""

import os

import processes


def test_workers_share_the_cores_and_have_a_gpu_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    first, third = (processes._environment(number, 3, ["4", "GPU-x"]) for number in (1, 3))
    assert first["OMP_NUM_THREADS"] == "2"
    assert (first["CUDA_VISIBLE_DEVICES"], third["CUDA_VISIBLE_DEVICES"]) == ("4", "4")
    assert processes._environment(2, 3, ["4", "GPU-x"])["CUDA_VISIBLE_DEVICES"] == "GPU-x"
    assert processes._environment(1, 2, [])["TQDM_DISABLE"] == "1"
