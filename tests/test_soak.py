"""The soak for a few rounds, and its verdict on figures that are made up."""

import csv
import os
from dataclasses import replace

import pytest
from soak import Held, main, soaked, verdicts

ROUNDS = 3 if os.environ.get("CELLSEG_FAULTS") else 1
FLAT = [Held(60.0 * n, 1000.0 + n % 3, 20 + n % 2, 8, 30.0) for n in range(40)]


def grown(**by):
    """Names of the figures that the verdict calls grown, where each round adds so much to some."""
    held = [
        replace(each, **{name: getattr(each, name) + a_round * n for name, a_round in by.items()})
        for n, each in enumerate(FLAT)
    ]
    return [name for name, line in verdicts(held).items() if "GREW" in line]


def test_what_comes_and_goes_is_flat():
    assert grown() == []


@pytest.mark.parametrize(("name", "a_round"), [("memory_mb", 2), ("files", 0.2), ("threads", 0.2), ("disk_mb", 0.1)])
def test_a_little_more_with_each_round_is_called_grown(name, a_round):
    assert grown(**{name: a_round}) == [name]


def test_what_only_the_first_quarter_adds_is_flat():
    warm = [Held(0.0, 100.0 * n, 2 * n, n, 3.0 * n) for n in range(10)]
    assert not any("GREW" in line for line in verdicts(warm + FLAT[10:]).values())


def test_each_round_is_written_down_and_leaves_nothing_on_the_disk(tmp_path):
    held = soaked(0, tmp_path / "soak.csv", least=ROUNDS)
    assert all(each.disk_mb == pytest.approx(held[0].disk_mb, abs=0.1) for each in held)
    with (tmp_path / "soak.csv").open(newline="") as file:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    assert rows == [pytest.approx(list(vars(each).values()), abs=1e-3) for each in held]


@pytest.mark.parametrize(("a_round", "code"), [(0, 0), (2, 1)])
def test_the_exit_code_tells_the_verdict(tmp_path, monkeypatch, capsys, a_round, code):
    held = [replace(each, memory_mb=each.memory_mb + a_round * n) for n, each in enumerate(FLAT)]
    monkeypatch.setattr("soak.soaked", lambda minutes, path: held)
    monkeypatch.setattr("sys.argv", ["soak.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert ("memory_mb: GREW" in capsys.readouterr().out) == bool(code)
    assert (tmp_path / "plots/soak.png").stat().st_size > 5000
