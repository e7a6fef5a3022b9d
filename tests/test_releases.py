"""What each version has left behind, tests/releases/<version>.tar.xz, is read and gone on with by this one."""

import csv
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from scripts import ROOT, run

from cellseg import checkpoint
from cellseg.checkpoint import load_model
from cellseg.config import RunConfig
from cellseg.config_fields import flat
from cellseg.evaluate import score
from cellseg.experiment import Silent, prepare
from cellseg.fine_tune import begun_from
from cellseg.fingerprint import Plan
from cellseg.predict import predict
from cellseg.train import fit
from cellseg.winner import read_winner

RELEASES = Path(__file__).with_name("releases")
sys.path.append(str(RELEASES))
from make import STUDY  # noqa: E402

ARCHIVES = sorted(RELEASES.glob("*.tar.xz"))


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def left(request, tmp_path_factory):
    """The folder of a project as a version left it."""
    folder = tmp_path_factory.mktemp("left")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def project(left, tmp_path):
    """A copy of it that may be written to."""
    return shutil.copytree(left, tmp_path, dirs_exist_ok=True)


def prepared_as(found, folder):
    return prepare(found.config, folder / "data")


def trained(config, prepared, folder, *, resume=False):
    arguments = (prepared.plan, prepared.data, prepared.train, prepared.validation, folder, Silent())
    return checkpoint.load(fit(config, *arguments, resume=resume).with_name("last.pt"))


def test_a_checkpoint_finds_what_it_found_when_it_was_written(left):
    model, found = load_model(left / "training/best.pt")
    prepared = prepared_as(found, left)
    assert prepared.plan == found.plan
    results = predict(model, prepared.data.identified(prepared.validation), found.config.predict)
    metrics = score(prepared.data.truth(prepared.validation), results, found.config.predict.pq_threshold).metrics
    assert found.metrics["val/AP50"] > 0.4
    assert metrics["AP50"] == pytest.approx(found.metrics["val/AP50"], abs=0.05)


def test_an_interrupted_training_goes_on(project):
    before = checkpoint.load(project / "training/last.pt")
    after = trained(before.config, prepared_as(before, project), project / "training", resume=True)
    assert (before.epoch, after.epoch) == (before.config.train.epochs - 1, before.config.train.epochs)
    assert after.training["history"][: before.epoch] == before.training["history"]
    assert after.metrics["val/AP50"] > before.metrics["val/AP50"] - 0.1


def test_a_checkpoint_is_fine_tuned(project, run_config):
    path = project / "training/best.pt"
    source = checkpoint.load(path)
    config = begun_from(path, source, replace(run_config, predict=source.config.predict), ())
    prepared = prepare(config, project / "data")
    gently = replace(prepared.config, train=replace(config.train, learning_rate=1e-6, epochs=1, steps_per_epoch=1))
    tuned = trained(gently, prepared, project / "tuned")
    for name, tensor in source.model.items():
        assert torch.allclose(tuned.model[name].float(), tensor.float(), atol=1e-3), name
    assert tuned.metrics["val/AP50"] == pytest.approx(source.metrics["val/AP50"], abs=0.2)


@pytest.mark.usefixtures("no_server")
def test_a_study_goes_on_and_is_reported(project):
    address = f"sqlite:///{project / 'optuna.db'}"
    before = optuna.load_study(study_name="kept", storage=address)
    tried = before.trials
    assert len(tried) == 3
    assert read_winner(project / "search/results", before.user_attrs["digest"], "demo").study == "kept"
    said = run(project, ROOT / "search/optuna_study.py", *STUDY, "--trials", "4")
    after = optuna.load_study(study_name="kept", storage=address)
    assert after.user_attrs == before.user_attrs
    assert after.trials[:3] == tried
    assert [trial.state.is_finished() for trial in after.trials] == [True] * 4
    assert "study kept: 4 trials" in said
    assert "**Tried**: 4 trials" in (project / "search/results/kept/study.md").read_text()
    rows = list(csv.DictReader((project / "search/results/kept/trials.csv").open()))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]


def test_a_new_field_raises_the_format(left):
    content = torch.load(left / "training/best.pt", weights_only=True)
    if content["format"] < checkpoint.FORMAT:
        pytest.skip("of an earlier format")
    now = {"config": set(flat(RunConfig())), "plan": set(Plan.__dataclass_fields__)}
    config = {name for group, value in content["config"].items() for name in dotted(group, value)}
    assert {"config": config, "plan": set(content["plan"])} == now, (
        "earlier versions cannot read what has this field: raise checkpoint.FORMAT and NEEDS, tests/releases/make.py"
    )


def dotted(group, value):
    return [f"{group}.{name}" for name in value] if isinstance(value, dict) else [group]


def test_what_is_kept_is_small():
    assert ARCHIVES
    assert sum(path.stat().st_size for path in ARCHIVES) < 200_000 * len(ARCHIVES)
