"""The MLflow run of a study: its plots, its files and its figures; and what it says of trials that are given up."""

import shutil

import optuna
import parent_run
import pytest
from optuna.trial import TrialState
from storage import open_storage
from study import RETRIES
from study_outcome import read_outcome
from study_report import write_report
from test_study_report import add

from cellseg import run_store
from cellseg.config_fields import flat

PLOTS = {"history", "parallel_coordinates", "slices", "ap_over_time", "recall_against_ap", "importances"}


@pytest.fixture
def logged(store, tmp_path, monkeypatch, prepared):
    """The run, and a client, of a study with twelve trained trials, a refused and a stopped one, and one given up."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(store, tmp_path)
    (tmp_path / "mlruns").mkdir()
    client = run_store.opened(tmp_path)[0]
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}", heartbeat=60)
    study = optuna.create_study(study_name="s", storage=storage.backend, direction="maximize")
    for name, value in {"id": "x", "digest": prepared.data.digest, "recipe": "demo"}.items():
        study.set_user_attr(name, value)
    for number in range(12):
        value, rate = 0.1 + number / 50, 1e-4 * 1.3**number
        add(study, TrialState.COMPLETE, value=value, seconds=100, reported=(value / 2, value), rate=rate)
    add(study, TrialState.PRUNED, seconds=1, prune_reason="best possible recall 0.01, too low")
    add(study, TrialState.PRUNED, value=0.05, seconds=40, reported=(0.05,), prune_reason="too far behind")
    add(study, TrialState.FAIL, seconds=1, deaths=RETRIES, death="killed (SIGKILL): probably out of memory")
    experiment = run_store.experiment_id(client, "cellseg-search", None)
    lost = client.create_run(experiment, tags={"study": "s", "study_id": "x", "trial": "14"}).info.run_id
    with parent_run.opened(study, storage, prepared) as run:
        outcome = read_outcome(study, storage)
        parent_run.log(run, study, outcome, write_report(outcome, tmp_path / "results", "x"))
    return client, client.get_run(run.id), client.get_run(lost)


def test_a_study_leaves_its_plots_its_tables_and_what_it_saved(logged, prepared):
    client, run, lost = logged
    kept = {each.path.removeprefix("study/") for each in client.list_artifacts(run.info.run_id, "study")}
    assert kept == {f"{name}.png" for name in PLOTS} | {"trials.csv", "finals.csv", "study.md", "best.json"}
    figures = run.data.metrics
    assert (figures["study/refused_trials"], figures["study/refused_seconds_saved"]) == (1, 100 - 1)
    assert (figures["study/pruned_trials"], figures["study/pruned_seconds_saved"]) == (1, 100 - 40)
    assert figures["best/AP50"] == pytest.approx(0.1 + 11 / 50)
    assert figures["importance/learning_rate"] + figures["importance/anchor_base"] == pytest.approx(1)
    assert run.info.status == "FINISHED"
    assert run.data.params.keys() >= flat(prepared.config).keys()
    assert lost.info.status == "FAILED"
    said = f"its worker died {RETRIES + 1} times, the last time of: killed (SIGKILL): probably out of memory"
    assert lost.data.tags["failure"] == said
