"""How a claim is measured: ours and theirs in turn, in one process and on one input, and the peak memory of each.

A claim is a script of `Case`s, one a size. Memory comes first, then the proof of the same answer, then time:
what a process has freed again would hide what the next run asks for.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import cellseg.openmp  # noqa: F401  before torch

from memory import Run, free_mb, peak_mb
from rows import Notes, Row, table

from cellseg.whole_files import write_whole

BUDGET = 10.0
"""seconds that the repeats of one size may take together, more or less"""
SLOW = 20.0
"""seconds; what takes longer is not repeated"""
SAMPLE = 0.03
"""seconds that the calls of one turn take together, at least"""
REPEATS = (3, 50)
"""least and most"""


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
    free = free_mb()
    if free >= case.theirs_needs_mb:
        return case
    said = f"not run: needs {case.theirs_needs_mb / 1000:.1f} GB, the machine has {free / 1000:.1f}"
    return replace(case, theirs=None, notes={**case.notes, "theirs": said})


def medians(runs: Sequence[Run], quick: bool = False) -> list[float]:
    """Median seconds of each run; they take turns, so that a busy machine is busy for all of them.

    The first turn warms up, and tells how many calls make up a SAMPLE: what is over at once is not measured with the
    caches that the other left. It counts only where it is the only one: when quick, and of a run that is SLOW.
    """
    taken = [[seconds_of(run)] for run in runs]
    repeated = [n for n, seconds in enumerate(taken) if seconds[0] < SLOW and not quick]
    calls = {n: max(1, round(SAMPLE / max(taken[n][0], 1e-6))) for n in repeated}
    turn = sum(taken[n][0] * calls[n] for n in repeated)
    for _ in range(min(max(REPEATS[0], int(BUDGET / max(turn, 1e-9))), REPEATS[1])):
        for n in repeated:
            taken[n].append(seconds_of(runs[n], calls[n]))
    return [median(seconds[1:] or seconds) for seconds in taken]


def seconds_of(run: Run, calls: int = 1) -> float:
    """Seconds on the clock of one call, as the mean of some; without the garbage collector, as timeit has it."""
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls
    finally:
        gc.enable()


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
