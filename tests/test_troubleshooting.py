"""docs/troubleshooting.md quotes errors as they are, and every one of them happens."""

import re

import numpy as np
import pytest
import torch
from scripts import ROOT, run
from storage import open_storage
from study import open_study

from cellseg.batch import Journal
from cellseg.checkpoint import load
from cellseg.config import DatasetConfig
from cellseg.config_fields import replaced
from cellseg.dataset import open_dataset
from cellseg.device import device_of
from cellseg.experiment import last_checkpoint
from cellseg.step import _refuse_unless_finite
from cellseg.user_errors import in_one_line
from cellseg.weights import _fetched

TEXT = (ROOT / "docs/troubleshooting.md").read_text()
HEADINGS = re.findall(r"^### (.+)$", TEXT, re.MULTILINE)


def wrong_level(folder):
    (folder / "inner/train/a").mkdir(parents=True)
    open_dataset(folder, DatasetConfig())


def no_network(folder, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    _fetched("a/weights.pth")


def no_checkpoint(folder):
    (folder / "a.pt").write_text("no checkpoint")
    load(folder / "a.pt")


def other_settings(folder):
    Journal(folder, {"checkpoint": "a"})
    Journal(folder, {"checkpoint": "b"})


def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device_of("cuda")


def another_setting(folder, prepared):
    storage = open_storage(f"sqlite:///{folder / 'optuna.db'}", heartbeat=60)
    for epochs in (2, 3):
        open_study("s", storage, prepared, replaced(prepared.config, {"train.epochs": epochs}), "card", "none")


def _raise(error):
    raise ValueError(in_one_line(error))


CAUSES = {
    "no train folder and no COCO file": lambda tmp, patch, prepared: wrong_level(tmp),
    "weights: could not fetch": lambda tmp, patch, prepared: no_network(tmp, patch),
    "no training on this data": lambda tmp, patch, prepared: last_checkpoint("d1", tmp),
    "expected tensors and plain values": lambda tmp, patch, prepared: no_checkpoint(tmp),
    "out of memory": lambda tmp, patch, prepared: _raise(torch.OutOfMemoryError("CUDA out of memory.")),
    "no space left on the disk": lambda tmp, patch, prepared: _raise(OSError(28, "No space left on device", "a")),
    "the loss or its gradient is not finite": lambda tmp, patch, prepared: _refuse_unless_finite(
        {"loss": np.nan}, ["a"]
    ),
    "it was begun with another setting": lambda tmp, patch, prepared: another_setting(tmp, prepared),
    "holds predictions with": lambda tmp, patch, prepared: other_settings(tmp),
    "this machine has no cuda device": lambda tmp, patch, prepared: no_gpu(patch),
}


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_heading_is_what_the_error_says(heading, tmp_path, monkeypatch, prepared):
    with pytest.raises(Exception, match=re.escape(heading)):
        CAUSES[heading](tmp_path, monkeypatch, prepared)


def test_there_are_ten():
    assert len(HEADINGS) == 10


def test_flags_that_the_cures_name_exist(tmp_path):
    helps = [ROOT / "experiments/final_train.py", ROOT / "experiments/submit.py", ROOT / "search/optuna_study.py"]
    known = "".join(run(tmp_path, script, "--help") for script in helps)
    known += run(tmp_path, "cellseg", "predict", "--help")
    for flag in set(re.findall(r"`(--[a-z.-]+)", TEXT)):
        assert flag in known, flag
