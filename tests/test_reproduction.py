import shlex
import sys
from dataclasses import replace
from pathlib import Path

from scripts import ROOT

from cellseg.command_line import parse_training
from cellseg.config_fields import replaced
from cellseg.recipes import RECIPES
from cellseg.reproduction import Recorded, commands

RECORDED = Recorded(RECIPES["demo"](), Path("/data/it's here"), "c0ffee")


def options_of(recorded, monkeypatch):
    """What final_train.py takes from the last of the commands."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from final_train import Options

    *_, train = commands(recorded).replace("\\\n", "").splitlines()
    program, script, *arguments = shlex.split(train)
    assert (program, script) == ("python", "experiments/final_train.py")
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    return parse_training(Options, "")


def test_the_commit_is_checked_out_and_each_option_has_a_line():
    assert commands(RECORDED).splitlines() == [
        "git checkout c0ffee",
        "python experiments/final_train.py --recipe demo \\",
        "    --seed 0 \\",
        "    --data '/data/it'\"'\"'s here' \\",
        "    --studies none",
    ]


def test_without_a_commit_there_is_none_to_check_out():
    assert commands(replace(RECORDED, commit="unknown")).startswith("python ")


def test_the_command_gives_config_and_data_again_and_takes_no_winner(monkeypatch):
    changes = {"train.learning_rate": 1.7e-5, "model.anchor_sizes": [4, 8.25], "augment.flips": False, "seed": 3}
    config = replaced(RECIPES["best-cpu"](), changes)
    options = options_of(replace(RECORDED, config=config), monkeypatch)
    assert options.config == config
    assert options.data == Path("/data/it's here")
    assert not options.studies.exists()
    assert (options.folds, options.all_data, options.resume) == (0, False, None)


def test_folds_are_trained_by_their_own_option(monkeypatch):
    config = replaced(RECIPES["demo"](), {"dataset.folds": 5, "dataset.fold": 0, "train.epochs": 2})
    options = options_of(replace(RECORDED, config=config, in_folds=True), monkeypatch)
    assert (options.folds, options.config.dataset.folds, options.config.train.epochs) == (5, 0, 2)


def test_several_processes_are_started_by_torchrun():
    assert "\ntorchrun --nproc-per-node 4 experiments/final_train.py --recipe demo" in commands(
        replace(RECORDED, processes=4)
    )
