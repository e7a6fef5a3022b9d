"""Nothing calls anyone on the net, and nobody on the net is let in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ALL, ROOT
from trainings import SCRIPT, STUDY, TRAINING

DEMO = [
    ["cellseg", "sample", "data", "--train", "2", "--test", "1"],
    ["cellseg", "inspect", "data"],
    [str(ROOT / "search/optuna_study.py"), *STUDY],
    [str(ROOT / SCRIPT), *TRAINING],
    [str(ROOT / "experiments/submit.py")],
    ["cellseg", "score", "submission.zip", "data/test_truth.json"],
    ["cellseg", "predict", "models:/cellseg@best", "data/test_release", "--out", "cells"],
]
EVERYONE = ".".join("0000")
"""the address of a server that answers whoever reaches its machine; written so, this file does not name it"""


@pytest.fixture
def offline(tmp_path):
    """Runs commands in a process that has loopback alone; gives whom they called, and what they said."""
    alone = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}

    def called(*commands):
        program = [*alone, sys.executable, str(Path(__file__).with_name("offline.py")), json.dumps(commands)]
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return called


def test_a_call_on_the_net_is_noted(offline, tmp_path):
    caller = tmp_path / "caller.py"
    caller.write_text(
        "import contextlib, socket\n"
        "for place in ('192.0.2.1', 'example.org', '127.0.0.1', 'localhost'):\n"
        "    with contextlib.suppress(OSError):\n"
        "        socket.create_connection((place, 9), 1)\n"
    )
    assert set(offline([str(caller)])) == {"192.0.2.1", "example.org"}


@pytest.mark.skipif(not ALL, reason="`make faults` goes the whole way from a sample to predictions")
def test_the_whole_way_needs_no_net_and_asks_for_none(offline, tmp_path):
    assert offline(*DEMO) == []
    assert (tmp_path / "submission.zip").is_file()
    assert list((tmp_path / "cells").glob("*.csv"))


def test_only_the_server_of_many_machines_is_open_to_all_and_the_docs_say_to_whom():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = {name: (ROOT / name).read_bytes().decode(errors="replace") for name in listed if (ROOT / name).is_file()}
    open_to_all = {name for name, text in texts.items() if EVERYONE in text}
    assert open_to_all == {"docs/growing.md", "tests/test_docs.py"}
    assert "basic-auth" in texts["docs/growing.md"]


@pytest.mark.skipif(not ALL, reason="`make faults` loads what would start the servers")
def test_mlflow_and_the_dashboard_are_for_this_machine_alone_unless_told_otherwise():
    from mlflow.cli import cli

    for name in ("server", "ui"):
        (host,) = (each.default for each in cli.get_command(None, name).params if each.name == "host")
        assert host == "127.0.0.1"
    program = Path(sys.executable).with_name("optuna-dashboard")
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    assert "(default: 127.0.0.1)" in said
