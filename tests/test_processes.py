"""How the workers of one call share a machine; test_workers.py runs them."""

import os
import signal
import sys

import processes
import pytest


def test_workers_share_the_cores_and_have_a_gpu_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    first, third = (processes._environment(number, 3, ["4", "GPU-x"]) for number in (1, 3))
    assert first["OMP_NUM_THREADS"] == "2"
    assert (first["CUDA_VISIBLE_DEVICES"], third["CUDA_VISIBLE_DEVICES"]) == ("4", "4")
    assert processes._environment(2, 3, ["4", "GPU-x"])["CUDA_VISIBLE_DEVICES"] == "GPU-x"
    assert processes._environment(1, 2, [])["TQDM_DISABLE"] == "1"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Let this process be one whose workers note that they began, and then do what a test says."""

    def written(what):
        script = tmp_path / "worker.py"
        begun = "import os, pathlib, signal\npathlib.Path('begun').open('a').write(f'{os.getpid()}\\n')\n"
        script.write_text(f"{begun}times = len(pathlib.Path('begun').read_text().splitlines())\n{what}\n")
        monkeypatch.setattr(sys, "argv", [str(script)])
        monkeypatch.chdir(tmp_path)
        return tmp_path / "begun"

    return written


def test_a_worker_that_is_killed_with_its_trial_is_started_again(command, capsys):
    begun, buried = command("os.kill(os.getpid(), signal.SIGKILL) if times < 3 else None"), []

    def bury(process, death):
        buried.append((process, death))
        return True

    assert processes.spawn(1, [], bury) == 0
    first, second, _ = map(int, begun.read_text().split())
    assert buried == [(pid, "killed (SIGKILL): probably out of memory") for pid in (first, second)]
    assert (
        "worker 1 was killed (SIGKILL): probably out of memory; another one takes its place" in capsys.readouterr().out
    )


def test_a_worker_that_is_killed_without_a_trial_or_ends_by_itself_is_not_started_again(command):
    begun = command("os.kill(os.getpid(), signal.SIGKILL)")
    assert processes.spawn(1, [], lambda process, death: False) == 1
    assert len(begun.read_text().split()) == 1
    begun = command("raise SystemExit(2)")
    assert processes.spawn(1, [], lambda process, death: True) == 2
    assert len(begun.read_text().split()) == 2


def test_no_worker_is_started_again_once_this_process_was_told_to_stop(command):
    begun = command("os.kill(os.getpid(), signal.SIGKILL)")

    def bury(process, death):
        signal.raise_signal(signal.SIGTERM)
        return True

    assert processes.spawn(1, [], bury) == 1
    assert len(begun.read_text().split()) == 1
