"""How threads wait is set unless the user has set it."""

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
TELL = f"import os, cellseg.command_line; print(*map(os.environ.get, {NAMES}))"


@pytest.mark.parametrize(
    ("set_by_hand", "expected"),
    [
        ({}, "passive 10000"),
        ({"GOMP_SPINCOUNT": "5"}, "passive 5"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
    ],
)
def test_threads_spin_shortly_unless_the_user_says_otherwise(set_by_hand, expected):
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | set_by_hand
    told = subprocess.run([sys.executable, "-c", TELL], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == expected.split()
