"""How a claim is measured: ours and theirs in turn, in one process and on one input, and the peak memory of each.

A claim is a script of `Case`s, one a size. Memory comes first, then the proof of the same answer, then time:
what a process has freed again would hide what the next run asks for.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch starts its threads

import argparse
import ctypes
import gc
import json
import resource
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cellseg.whole_files import write_whole

Run = Callable[[], object]
Notes = Mapping[str, Any]

BUDGET = 10.0
"""seconds that the repeats of one size may take together, more or less"""
SLOW = 20.0
"""seconds; what takes longer is not repeated"""
REPEATS = (3, 50)
"""least and most"""
FIELDS = ("claim", "size", "ours_s", "theirs_s", "ratio", "ours_mb", "theirs_mb", "memory_ratio", "notes")
"""of a row in JSON"""
SMALLEST_MB = 0.1
"""memory below it cannot be told from the noise of the allocator"""


@dataclass(frozen=True)
class Case:
    """One size of a claim."""

    size: float
    """what grows, in the claim's unit"""
    ours: Run
    theirs: Run | None = None
    """None where nobody else does it"""
    check: Callable[[], Notes] | None = None
    """raises AssertionError unless both give the same answer; what it tells goes into the notes"""
    notes: Notes = field(default_factory=dict)
    """`variant` tells rows of one size apart"""
    theirs_needs_mb: float = 0.0
    """theirs is left out, and the notes say so, where the machine has less memory to give"""

    def __post_init__(self) -> None:
        if self.theirs and not self.check:
            raise ValueError(f"case of size {self.size}: expected a check that both give the same answer, got none")


@dataclass(frozen=True)
class Row:
    """What one size of a claim brought; None where there is no opponent, or where it was not measured."""

    claim: str
    size: float
    ours_s: float
    theirs_s: float | None
    ours_mb: float | None
    theirs_mb: float | None
    notes: Notes = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.theirs_s is None else self.theirs_s / self.ours_s

    @property
    def memory_ratio(self) -> float | None:
        """How many times less memory ours needs at its peak."""
        return None if self.theirs_mb is None or self.ours_mb is None else self.theirs_mb / self.ours_mb

    @property
    def variant(self) -> str:
        """Which of several rows of one size it is."""
        return str(self.notes.get("variant", ""))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        values = asdict(self) | {"ratio": self.ratio, "memory_ratio": self.memory_ratio}
        return {name: values[name] for name in FIELDS}


def row_of(values: Mapping[str, Any]) -> Row:
    """The inverse of Row.to_dict."""
    return Row(**{name: value for name, value in values.items() if name not in ("ratio", "memory_ratio")})


def measured(claim: str, cases: Sequence[Case], quick: bool = False) -> list[Row]:
    """A row for each case; quick runs each case once."""
    cases = [_affordable(case) for case in cases]
    small = cases[0]
    memory = [(peak_mb(case.ours, small.ours), case.theirs and peak_mb(case.theirs, small.theirs)) for case in cases]
    rows: list[Row] = []
    for case, (ours_mb, theirs_mb) in zip(cases, memory, strict=True):
        notes = {**case.notes, **({**case.check(), "same_answer": True} if case.check else {})}
        ours_s, *theirs_s = medians([case.ours, *([case.theirs] if case.theirs else [])], quick)
        row = Row(claim, case.size, ours_s, next(iter(theirs_s), None), ours_mb, theirs_mb, notes)
        first = next((each for each in rows if each.variant == row.variant), row)
        rows.append(replace(row, notes={**notes, "growth": row.ours_s / first.ours_s}))
    return rows


def _affordable(case: Case) -> Case:
    """The case, without theirs where it would bring the machine down."""
    free_mb = int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1.024e-3
    if free_mb >= case.theirs_needs_mb:
        return case
    said = f"not run: needs {case.theirs_needs_mb / 1000:.1f} GB, the machine has {free_mb / 1000:.1f}"
    return replace(case, theirs=None, notes={**case.notes, "theirs": said})


def medians(runs: Sequence[Run], quick: bool = False) -> list[float]:
    """Median seconds of each run; they take turns, so that a busy machine is busy for all of them.

    The first turn warms up. It counts only where it is the only one: when quick, and of a run that is SLOW.
    """
    taken = [[seconds_of(run)] for run in runs]
    repeated = [n for n, seconds in enumerate(taken) if seconds[0] < SLOW and not quick]
    turn = sum(taken[n][0] for n in repeated)
    for _ in range(min(max(REPEATS[0], int(BUDGET / max(turn, 1e-9))), REPEATS[1])):
        for n in repeated:
            taken[n].append(seconds_of(runs[n]))
    return [median(seconds[1:] or seconds) for seconds in taken]


def seconds_of(run: Run) -> float:
    """Seconds on the clock of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_mb(run: Run, warm_up: Run | None = None) -> float:
    """MB that one call adds at its peak to a process that has made the warm-up call, at least SMALLEST_MB.

    Of a forked child, in its resident pages: tracemalloc does not see what torch and OpenCV allocate. The warm-up loads
    code, which counts as memory too. Raises RuntimeError where a call fails.
    """
    _give_back()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _tell_peak(run, warm_up, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not told:
        raise RuntimeError(f"memory: the measured call failed with status {status}; its error stands above")
    return max(float(told), SMALLEST_MB)


def _give_back() -> None:
    """Return freed pages to the system: the next call would use them unseen."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _tell_peak(run: Run, warm_up: Run | None, writing: int) -> None:
    """Call in a child, write what it added at its peak, and leave without the parent's clean-up."""
    code = 1
    try:
        torch.set_num_threads(1)  # threads do not survive a fork
        if warm_up:
            warm_up()
            _give_back()
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten: man 5 proc
        before = _resident_kb()
        run()
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writing, f"{added * 1.024e-3:.3f}".encode())  # KiB
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _resident_kb() -> int:
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def main(claim: str, cases: Callable[[bool], Sequence[Case]]) -> None:
    """What a claim's script does: measure its cases and tell."""
    arguments = options(f"Measure the claim {claim!r} of benchmarks/claims.py.")
    finish(measured(claim, cases(arguments.quick), arguments.quick), arguments.out)


def options(description: str) -> argparse.Namespace:
    """`quick` and `out` of the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="the smallest size alone, once: a test, not a figure")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    return parser.parse_args()


def finish(rows: Sequence[Row], out: Path | None) -> None:
    """Print the rows, and write them where a file is named."""
    print(table(rows))
    if out:
        write_whole(json.dumps([row.to_dict() for row in rows], indent=1), out)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns."""
    head = ("claim", "size", "ours s", "theirs s", "ratio", "ours MB", "theirs MB", "ratio", "notes")
    lines = [head, *(cells_of(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    )


def cells_of(row: Row) -> tuple[str, ...]:
    """The texts of a row's columns."""
    numbers = (row.ours_s, row.theirs_s, row.ratio, row.ours_mb, row.theirs_mb, row.memory_ratio)
    notes = ", ".join(f"{name} {shown(value)}" for name, value in row.notes.items() if name != "same_answer")
    return (row.claim, shown(row.size), *map(shown, numbers), notes)


def shown(value: object) -> str:
    """A value in few digits."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
