"""Every script of benchmarks/ for real, on its smallest size: the answers are compared, the rows are written."""

import json
from pathlib import Path

import pytest
import torch
from claims import CLAIMS
from rows import FIELDS, Row
from run_all import beside, measured, write
from scripts import ROOT, run, run_process

FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(FOLDER / f"{claim}.py" for claim in CLAIMS)


def written(path):
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_claim_is_measured_after_both_gave_the_same_answer(script, tmp_path):
    if torch.cuda.is_available() and script.stem == "step":
        pytest.skip("autograd does not run in the child of a process that has used a GPU; `make bench` runs it")
    said = run(tmp_path, script, "--quick", "--out", "rows.json")
    rows = written(tmp_path / "rows.json")
    assert rows
    for row in rows:
        assert tuple(row) == FIELDS
        assert row["claim"] == script.stem
        assert row["ours_s"] > 0
        assert row["theirs_s"] is None or row["notes"].keys() & {"same_answer", "f1"}
    assert any(row["theirs_s"] for row in rows) or script.stem in ("loader", "tiles")
    assert script.stem in said


def test_a_claim_that_fails_loses_no_other_s_rows(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)")
    rows, failed = measured([broken, FOLDER / "targets.py"], quick=True)
    assert failed == ["broken.py"]
    write(rows, tmp_path / "out")
    assert [row["claim"] for row in written(tmp_path / "out/results.json")] == ["targets"]
    assert "`targets`" in (tmp_path / "out/results.md").read_text()
    assert (tmp_path / "out/plots/targets.png").exists()


def test_claims_measured_alone_stand_beside_those_of_before(tmp_path):
    before, again = (Row("targets", 1, seconds, 1.0, 1.0, 1.0) for seconds in (0.1, 0.2))
    write([before, Row("rle", 1, 0.1, 1.0, 1.0, 1.0)], tmp_path)
    assert beside([again], tmp_path / "results.json") == [again, Row("rle", 1, 0.1, 1.0, 1.0, 1.0)]
    assert beside([again], tmp_path / "none.json") == [again]


def test_the_gpu_s_script_runs_on_a_cpu_when_it_is_asked_to(tmp_path):
    run(tmp_path, FOLDER / "gpu.py", "--device", "cpu", "--quick", "--out", "rows.json")
    rows = written(tmp_path / "rows.json")
    assert [row["notes"]["variant"].split(",")[0] for row in rows] == ["training", "inference", "with the loader"]
    assert all(tuple(row) == FIELDS for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_the_gpu_s_script_says_in_one_line_that_there_is_none(tmp_path):
    said = run(tmp_path, FOLDER / "gpu.py", code=2)
    assert said.count("\n") == 1
    assert "--device cpu --quick" in said


def test_help_names_the_claims(tmp_path):
    assert "targets" in run_process(tmp_path, FOLDER / "run_all.py", "--help")
