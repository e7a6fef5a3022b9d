"""The harness of benchmarks/: what it counts and what it writes; no test asks how fast anything is."""

import json
import time
from functools import partial

import measure
from measure import Case, measured, medians

import numpy as np
import pytest
import torch
from charts import chart
from claims import CLAIMS, Bar, markdown, verdict
from memory import SMALLEST_MB, peak_mb
from rows import FIELDS, Row, row_of, table

from cellseg.plots import save

MB = 1_000_000


def row(claim="targets", size=70.0, ours_s=0.5, theirs_s=10.0, ours_mb=2.0, theirs_mb=200.0, **notes):
    return Row(claim, size, ours_s, theirs_s, ours_mb, theirs_mb, notes)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the harness sees on its clock, for a test to move on."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("allocate", [lambda: np.ones(64 * MB, np.uint8), lambda: torch.ones(16 * MB)])
def test_the_memory_of_an_allocation_is_seen(allocate):
    assert peak_mb(allocate) == pytest.approx(64, rel=0.2)


def test_the_peak_counts_and_not_what_is_left():
    def rises_and_falls():
        first = np.ones(64 * MB, np.uint8)
        del first
        return np.ones(8 * MB, np.uint8)

    assert peak_mb(rises_and_falls) == pytest.approx(64, rel=0.2)


def test_what_the_warm_up_needed_is_not_counted():
    assert peak_mb(lambda: np.ones(16 * MB, np.uint8), lambda: np.ones(64 * MB, np.uint8)) == pytest.approx(16, rel=0.2)


def test_next_to_nothing_is_the_smallest_that_can_be_told():
    assert SMALLEST_MB <= peak_mb(lambda: None) < 2


def test_a_call_that_fails_in_the_child_is_an_error_here(capfd):
    with pytest.raises(RuntimeError, match="the measured call failed"):
        peak_mb(lambda: 1 / 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_the_median_leaves_out_the_warm_up(monkeypatch):
    monkeypatch.setattr(measure, "SAMPLE", 0)
    calls = []

    def slow_at_first():
        calls.append(len(calls))
        time.sleep(0.2 if len(calls) == 1 else 0)

    (seconds,) = medians([slow_at_first])
    assert len(calls) >= 4
    assert seconds < 0.1


def test_runs_take_turns(monkeypatch):
    monkeypatch.setattr(measure, "SAMPLE", 0)
    calls = []
    medians([lambda: calls.append("ours"), lambda: calls.append("theirs")])
    assert calls[:6] == ["ours", "theirs"] * 3


def test_what_is_over_at_once_is_called_more_often_in_a_turn(clock):
    calls = []

    def run(name, seconds):
        calls.append(name)
        clock[0] += seconds

    found = medians([partial(run, "s", measure.SAMPLE / 4), partial(run, "l", 1.0)])
    assert found == pytest.approx([measure.SAMPLE / 4, 1.0])
    assert "".join(calls).startswith("sl" + "ssssl" * 3)


def test_quick_runs_everything_once():
    calls = []
    medians([lambda: calls.append("ours"), lambda: calls.append("theirs")], quick=True)
    assert calls == ["ours", "theirs"]


def test_a_case_against_others_needs_a_check():
    with pytest.raises(ValueError, match="expected a check"):
        Case(1, ours=list, theirs=list)


def test_different_answers_give_no_row():
    def differ():
        raise AssertionError("other answers")

    with pytest.raises(AssertionError, match="other answers"):
        measured("targets", [Case(1, list, list, differ)], quick=True)


def test_what_the_machine_cannot_hold_is_not_run():
    (found,) = measured("rle", [Case(1, list, list, dict, theirs_needs_mb=1e9)], quick=True)
    assert found.theirs_s is None
    assert found.ratio is None
    assert "not run" in found.notes["theirs"]


def test_ratios_are_theirs_over_ours_and_rows_survive_json():
    one = row()
    assert (one.ratio, one.memory_ratio) == (20, 100)
    written = json.loads(json.dumps(one.to_dict()))
    assert tuple(written) == FIELDS
    assert row_of(written) == one
    assert Row("loader", 0, 1.0, None, None, None).to_dict()["ratio"] is None


def test_growth_is_over_the_first_size_of_a_variant(clock):
    def nap(seconds):
        clock[0] += seconds

    naps = [Case(size, partial(nap, size), notes={"variant": "nap"}) for size in (1, 4)]
    assert [each.notes["growth"] for each in measured("loader", naps, quick=True)] == [1, 4]


def test_a_bar_asks_for_time_memory_and_notes():
    assert verdict(row()) == ("10x time, 50x memory", "yes")
    assert verdict(row(theirs_s=4.9))[1] == "no"
    assert verdict(row(theirs_mb=99.0))[1] == "no"
    assert verdict(row("step", growth=1.2))[1] == "no"
    assert verdict(row("step"))[1] == "no"  # a figure that is missing meets nothing
    assert verdict(row("augment", variant="geometry", size=40)) == ("", "")
    assert Bar(at_least={"F1": 0.98}).met(row(F1=0.99))


def test_tables_hold_every_row():
    rows = [row(), row("loader", 0, theirs_s=None, theirs_mb=None, variant="demo", images_per_s=12.5)]
    assert len(table(rows).splitlines()) == 3
    text = markdown(rows)
    assert "| `targets` | 70 cells | 0.5 s | 10 s | 20x |" in text
    assert "images_per_s 12.5" in text


@pytest.mark.parametrize("claim", list(CLAIMS))
def test_a_chart_is_drawn_with_or_without_opponents_memory_and_sizes_above_0(claim, tmp_path):
    alone = {"theirs_s": None, "theirs_mb": None, "ours_mb": None}
    save(chart([row(claim, size, variant="b", **alone) for size in (0, 2)]), tmp_path / "alone.png")
    save(chart([row(claim, 70), row(claim, 700, variant="b")]), tmp_path / "both.png")
    assert (tmp_path / "both.png").stat().st_size > 1000
