"""Runs every claim in a process of its own and writes results.json, results.md and plots/; `make bench` calls it.

Claims that are named are measured alone, and those of before are kept.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from charts import chart
from claims import CLAIMS, markdown
from rows import Row, row_of, table

from cellseg.plots import save
from cellseg.whole_files import write_whole

HERE = Path(__file__).parent


def main() -> None:
    """Parse, measure, write; the exit code is 1 where a claim's script failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="claim", help=f"of {', '.join(CLAIMS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes alone, once: a test, not a figure")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to")
    arguments = parser.parse_args()
    scripts = [HERE / f"{claim}.py" for claim in arguments.claims or CLAIMS]
    rows, failed = measured(scripts, arguments.quick)
    write(beside(rows, arguments.out / "results.json"), arguments.out)
    print(table(rows))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the rows of the others are in {arguments.out}")


def measured(scripts: Sequence[Path], quick: bool) -> tuple[list[Row], list[str]]:
    """The rows of the scripts, one after the other, and the names of those that failed."""
    rows: list[Row] = []
    failed: list[str] = []
    for script in scripts:
        print(f"{script.stem} …", flush=True)
        with TemporaryDirectory() as folder:
            out = Path(folder) / "rows.json"
            command = [sys.executable, str(script), "--out", str(out), *(["--quick"] if quick else [])]
            if subprocess.run(command, check=False).returncode:
                failed.append(script.name)
            else:
                rows += [row_of(values) for values in json.loads(out.read_text())]
    return rows, failed


def beside(rows: Sequence[Row], path: Path) -> list[Row]:
    """The rows, and those that a file has of other claims, in the order of CLAIMS."""
    known = [row_of(values) for values in json.loads(path.read_text())] if path.exists() else []
    fresh = {row.claim for row in rows}
    return sorted(
        [*(row for row in known if row.claim not in fresh), *rows], key=lambda row: list(CLAIMS).index(row.claim)
    )


def write(rows: Sequence[Row], folder: Path) -> None:
    """Write the rows, their table and a plot a claim."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(json.dumps([row.to_dict() for row in rows], indent=1), folder / "results.json")
    write_whole(markdown(rows), folder / "results.md")
    for claim in dict.fromkeys(row.claim for row in rows):
        save(chart([row for row in rows if row.claim == claim]), folder / "plots" / f"{claim}.png")


if __name__ == "__main__":
    main()
