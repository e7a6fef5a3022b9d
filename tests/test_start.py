from scripts import ROOT, run
from start import imports_of, seconds_of


def test_help_starts_no_measurement(tmp_path):
    assert "imports" in run(tmp_path, ROOT / "benchmarks/start.py", "--help")


def test_a_command_is_timed_from_call_to_exit():
    assert seconds_of(("-c", "import time; time.sleep(0.2)"), repeats=1) > 0.2


def test_imports_that_take_long_are_named_with_their_seconds(tmp_path):
    (tmp_path / "tyro.py").write_text("import time\ntime.sleep(0.2)\n")
    (slow,) = imports_of(("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tyro, json"))
    assert slow.startswith("tyro ")
    assert imports_of(("-c", "import json")) == []
