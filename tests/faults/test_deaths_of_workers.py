"""A trial that takes its worker with it, each time: it is given up with its cause, and the study goes on meanwhile."""

import csv
import shutil

import pytest
from commands import ALL
from optuna.trial import TrialState
from studies import SEARCH, finish, start, trials
from study import earlier_tries

pytestmark = pytest.mark.skipif(not ALL, reason="`make faults` runs it: a worker is killed again and again")
KILLS = """
    if trial.user_attrs.get("anchor_set") == "torchvision":
        os.kill(os.getpid(), 9)
    config = trial_config(trial, shared)
"""


def test_two_workers_outlive_a_trial_that_kills_them(tmp_path, folder):
    changed = tmp_path / "search_of_its_own"
    shutil.copytree(SEARCH, changed, ignore=shutil.ignore_patterns("results", "__pycache__"))
    for name, line, other in (
        ("objective.py", "\n    config = trial_config(trial, shared)\n", KILLS),
        ("objective.py", "from collections.abc", "import os\nfrom collections.abc"),
        ("study.py", "RETRIES = 5", "RETRIES = 1"),
    ):
        text = (changed / name).read_text()
        assert text.count(line) == 1
        (changed / name).write_text(text.replace(line, other))
    address = f"sqlite:///{tmp_path / 'optuna.db'}"
    few = ("--trials", "4", "--trial-epochs", "1", "--storage", address, "--workers", "2", "--heartbeat", "60")
    said = finish(tmp_path, start(tmp_path, folder, *few, script=changed / "optuna_study.py"))
    assert said.count("was killed (SIGKILL): probably out of memory; another one takes its place") == 2
    killers = [trial for trial in trials(address) if trial.user_attrs.get("anchor_set") == "torchvision"]
    assert [trial.state for trial in killers] == [TrialState.FAIL, TrialState.FAIL]
    assert earlier_tries(killers[1]) == [killers[0].number]
    others = [trial.state for trial in trials(address) if trial.number not in {each.number for each in killers}]
    assert len(others) == 3
    assert set(others) <= {TrialState.COMPLETE, TrialState.PRUNED}
    cause = "its worker died 2 times, the last time of: killed (SIGKILL): probably out of memory"
    rows = list(csv.DictReader((tmp_path / "search/results/s/trials.csv").open()))
    assert cause in [row["fail_reason"] for row in rows]
    assert "1 failed" in (tmp_path / "search/results/s/study.md").read_text()
