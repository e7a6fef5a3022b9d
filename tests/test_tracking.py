import multiprocessing
import re
import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run as Logged
from mlflow_server import PATIENCE

from cellseg import git, open_run, run_log, tracking
from cellseg.run_messages import to_line
from cellseg.tracking import Run

pytestmark = pytest.mark.usefixtures("no_server", "booting_server")  # the server comes up while other tests run
IMAGE = np.full((4, 6, 3), 200, np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a root") / "with spaces"


@pytest.fixture
def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def started(root: Path, **changes: Any) -> AbstractContextManager[Run]:
    settings: dict[str, Any] = {
        "params": {"train.batch": 4},
        "config": {"seed": 1},
        "tags": {"digest": "d1"},
        "system_metrics": False,
    }
    return tracking.start("cells", "first", root=root, **(settings | changes))


def logged(client: MlflowClient, run: Run) -> Logged:
    return client.get_run(run.id)


def steps(client: MlflowClient, run: Run, name: str) -> list[int]:
    return sorted(metric.step for metric in client.get_metric_history(run.id, name))


def files(root: Path, run: Run) -> set[str]:
    folder = root / "mlruns" / "cells" / run.id / "artifacts"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_keeps_metrics_parameters_tags_and_name(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        run.metrics({"train/loss": 2.5}, 1)
        run.metrics({"train/loss": 1.5}, 2)
        run.tag("note", "short")
    found = logged(client, run)
    assert found.data.metrics == {"train/loss": 1.5}
    assert steps(client, run, "train/loss") == [1, 2]
    assert found.data.params == {"train.batch": "4"}
    assert found.data.tags["digest"] == "d1"
    assert found.data.tags["note"] == "short"
    assert found.info.run_name == "first"
    assert found.info.status == "FINISHED"


def test_artifacts_lie_under_mlruns_and_the_experiment(root: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_bytes(b"weights")
    with started(root) as run:
        run.artifact(checkpoint, "checkpoints")
        run.json({"zoom": 1.5}, "plan.json")
        run.figure(Figure(), "curves/epoch-001.png")
    assert files(root, run) == {"config.json", "checkpoints/best.pt", "plan.json", "curves/epoch-001.png"}


def test_an_image_is_kept_with_its_key_and_step(root: Path) -> None:
    with started(root) as run:
        run.image(IMAGE, "validation/slide (2)", 7)
    names = [name for name in files(root, run) if name.endswith(".png")]
    assert len(names) == 1
    # MLflow 3.10 writes # and %, where later ones write ~ and +
    assert re.match(r"images/validation[#~]slide _2_[%+]step[%+]7[%+]", names[0])


def test_an_artifact_that_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    with started(root) as run, pytest.raises(FileNotFoundError, match=r"lost\.pt"):
        run.artifact(tmp_path / "lost.pt")


def test_more_figures_than_one_batch_holds_all_arrive(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        run.metrics({f"m{k}": 0.0 for k in range(2001)}, 1)
    assert len(logged(client, run).data.metrics) == 2001


def test_more_parameters_than_one_batch_holds_all_arrive_and_long_ones_are_cut(
    root: Path, client: MlflowClient
) -> None:
    with started(root, params={f"p{k}": k for k in range(101)} | {"long": "x" * 7000}) as run:
        pass
    params = logged(client, run).data.params
    assert len(params) == 102
    assert params["long"] == "x" * 6000


def test_figures_are_sent_while_the_run_goes_on(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_run, "FLUSH_SECONDS", 3600.0)
    with started(root) as run:
        run.metrics({"a": 1.0}, 1)
        assert not logged(client, run).data.metrics  # one value waits for others
        run.flush()
        assert logged(client, run).data.metrics == {"a": 1.0}
        monkeypatch.setattr(open_run, "FLUSH_SECONDS", 0.0)
        run.metrics({"a": 2.0}, 2)
        assert logged(client, run).data.metrics == {"a": 2.0}


def test_figures_that_are_not_finite_are_left_out(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        run.metrics({"a": float("nan"), "b": float("inf"), "c": 1.0}, 1)
    assert logged(client, run).data.metrics == {"c": 1.0}


def test_a_class_name_with_odd_characters_is_logged(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        run.metrics({"val/AP50/T cell (CD8+)": 0.5}, 1)
    assert logged(client, run).data.metrics == {"val/AP50/T cell _CD8__": 0.5}


def fail(root: Path, runs: list[Run], error: BaseException) -> None:
    with started(root) as run:
        runs.append(run)
        run.metrics({"train/loss": 1.0}, 1)
        raise error


def test_an_exception_ends_the_run_failed_with_what_was_logged(root: Path, client: MlflowClient) -> None:
    runs: list[Run] = []
    with pytest.raises(RuntimeError, match="CUDA"):
        fail(root, runs, RuntimeError("out of\nCUDA memory"))
    found = logged(client, runs[0])
    assert found.info.status == "FAILED"
    assert found.data.tags["failure"] == "RuntimeError: out of CUDA memory"
    assert found.data.metrics == {"train/loss": 1.0}


def test_an_interruption_ends_the_run_killed(root: Path, client: MlflowClient) -> None:
    runs: list[Run] = []
    with pytest.raises(KeyboardInterrupt):
        fail(root, runs, KeyboardInterrupt())
    found = logged(client, runs[0])
    assert found.info.status == "KILLED"
    assert found.data.metrics == {"train/loss": 1.0}
    assert not {"pruned", "failure"} & set(found.data.tags)


def test_a_pruned_trial_ends_killed_with_its_reason(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        run.end_as("KILLED", "AP50 0.1 is under the median")
    found = logged(client, run)
    assert found.info.status == "KILLED"
    assert found.data.tags["pruned"] == "AP50 0.1 is under the median"


def test_a_resumed_run_logs_no_step_twice_and_forgets_its_failure(root: Path, client: MlflowClient) -> None:
    runs: list[Run] = []
    with pytest.raises(RuntimeError):
        fail(root, runs, RuntimeError("power cut"))
    with started(root, run_id=runs[0].id, params={"train.batch": 8}, tags={"digest": "d2"}) as run:
        assert logged(client, run).info.status == "RUNNING"
        for step in (1, 2, 3):
            run.metrics({"train/loss": 1.0 / step, "val/AP50": 0.1}, step)
    found = logged(client, run)
    assert run.id == runs[0].id
    assert steps(client, run, "train/loss") == [1, 2, 3]
    assert steps(client, run, "val/AP50") == [1, 2, 3]
    assert found.info.status == "FINISHED"
    assert "failure" not in found.data.tags
    assert found.data.tags["digest"] == "d2"
    assert found.data.params == {"train.batch": "4"}


def test_a_run_that_the_store_lacks_cannot_be_resumed(root: Path) -> None:
    with pytest.raises(ValueError, match=r"run beef: not in sqlite.*MLFLOW_TRACKING_URI"), started(root, run_id="beef"):
        pass


def test_a_finished_run_is_read_and_given_a_file_and_stays_as_it_is(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        run.metrics({"train/loss": 2.0}, 2)
        run.metrics({"train/loss": 3.0}, 1)
        run.end_as("KILLED", "slow")
    before = logged(client, run).info
    run_log.add_text(run.id, "<p>ÄÖ</p>", "report/report.html", root=root)
    found = run_log.logged(run.id, root=root)
    assert (found.id, found.name, found.status) == (run.id, "first", "KILLED")
    assert (found.params, found.tags["digest"], found.metrics) == ({"train.batch": "4"}, "d1", {"train/loss": 2.0})
    assert found.ended is not None
    assert found.started.timestamp() == pytest.approx(before.start_time / 1000)
    assert (logged(client, run).info.status, logged(client, run).info.end_time) == ("KILLED", before.end_time)
    assert list(run_log.history(run.id, "train/loss", root=root).items()) == [(1, 3.0), (2, 2.0)]
    assert run_log.history(run.id, "no such metric", root=root) == {}
    assert files(root, run) == {"config.json", "report/report.html"}
    kept = root / "mlruns" / "cells" / run.id / "artifacts/report/report.html"
    assert kept.read_text(encoding="utf-8") == "<p>ÄÖ</p>"


def test_a_run_that_goes_on_has_not_ended(root: Path) -> None:
    with started(root) as run:
        assert (run_log.logged(run.id, root=root).ended, run_log.logged(run.id, root=root).status) == (
            None,
            "RUNNING",
        )


def test_reading_a_run_that_is_not_there_makes_no_store(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mlflow\.db: no such store of runs"):
        run_log.logged("beef", root=tmp_path)
    assert not list(tmp_path.iterdir())
    with started(root):
        pass
    with pytest.raises(ValueError, match=r"run beef: not in sqlite"):
        run_log.logged("beef", root=root)
    with pytest.raises(ValueError, match=r"run beef: not in sqlite"):
        run_log.add_text("beef", "", "a.txt", root=root)


def test_children_are_found_under_their_parent_which_stays_open(root: Path, client: MlflowClient) -> None:
    with started(root) as study:
        with started(root, parent=study.id) as trial:
            trial.metrics({"a": 1.0}, 1)
        study.metrics({"b": 2.0}, 1)
    experiment = logged(client, study).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{study.id}'")
    assert [child.info.run_id for child in children] == [trial.id]
    assert logged(client, study).data.metrics == {"b": 2.0}


def test_the_newest_run_with_all_tags_is_found(root: Path) -> None:
    with started(root, tags={"study": "Ann's", "kind": "study"}):
        pass
    time.sleep(0.002)  # MLflow counts milliseconds
    with started(root, tags={"study": "Ann's", "kind": "study"}) as second:
        pass
    with started(root, tags={"study": "Ann's", "kind": "trial"}):
        pass
    assert tracking.find_run("cells", {"study": "Ann's", "kind": "study"}, root=root) == second.id
    assert tracking.find_run("cells", {"study": "Bob's"}, root=root) is None
    assert tracking.find_run("never used", {}, root=root) is None


def test_the_use_of_the_machine_is_logged_until_the_run_fails(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setattr(open_run, "FLUSH_SECONDS", 0.0)

    def fail_once_there() -> None:
        with started(root, system_metrics=True) as run:
            limit = time.monotonic() + PATIENCE
            while "system/cpu_utilization_percentage" not in logged(client, run).data.metrics:
                assert time.monotonic() < limit
                time.sleep(0.05)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_once_there()
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}


def test_every_run_is_tagged_with_its_commit(root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "c0ffee", "status": " M cellseg/train.py"}
    monkeypatch.setattr(git, "_git", lambda folder, command, *rest: answers[command])
    with started(root) as run:
        pass
    tags = logged(client, run).data.tags
    assert (tags["git.commit"], tags["git.dirty"], tags["mlflow.source.git.commit"]) == ("c0ffee", "true", "c0ffee")


def test_a_run_names_its_data_its_script_and_its_user_and_describes_itself(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        for _ in range(2):  # a resume names it again
            run.dataset("data", "717e45363e3b9390")
        run.describe("long" * 5000)
    found = logged(client, run)
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("data", "717e45363e3b9390")
    assert used.dataset.source == str(Path("data").resolve())
    assert found.data.tags["mlflow.source.name"] == sys.argv[0]
    assert found.data.tags["mlflow.user"]
    assert found.data.tags["mlflow.note.content"] == "long" * 1250


def test_a_user_without_a_name_is_left_out(root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(tracking.getpass, "getuser", nameless)
    with started(root) as run:
        pass
    assert "mlflow.user" not in logged(client, run).data.tags


def log_one(root: Path, gate: Any, number: int) -> None:
    gate.wait(120)
    with started(root, tags={"digest": "d1", "data": "data", "recipe": "demo"}) as run:
        run.dataset("data", "d1")
        run.metrics({"number": number}, 1)
    tracking.register(run.id, number / 10, root=root)


def test_four_processes_may_start_and_register_at_once_in_an_empty_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cellseg.tracking", "mlflow.store.tracking.sqlalchemy_store", "matplotlib.figure"])
    gate = context.Barrier(4)
    workers = [context.Process(target=log_one, args=(tmp_path, gate, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("cells")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["number"] for run in runs) == [0, 1, 2, 3]
    assert all(run.inputs.dataset_inputs for run in runs)
    versions = client.search_model_versions("name = 'cellseg'")
    assert sorted(version.tags["AP50"] for version in versions) == ["0.0000", "0.1000", "0.2000", "0.3000"]
    assert client.get_model_version_by_alias("cellseg", "best").tags["AP50"] == "0.3000"


def test_what_a_store_could_not_be_told_is_sent_from_the_folder_of_the_run(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        pass
    waiting = root / "mlruns/unsent" / f"{run.id}.jsonl"
    waiting.parent.mkdir()
    waiting.write_text(f"{to_line('metrics', {'points': [('a', 1.0, 1700000000000, 3)]})}\n")
    assert tracking.send_waiting(root) == 1
    assert steps(client, run, "a") == [3]
    assert tracking.send_waiting(root) == 0


def test_what_a_store_refuses_of_a_run_does_not_hold_up_that_of_others(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        pass
    line = f"{to_line('metrics', {'points': [('a', 1.0, 1700000000000, 3)]})}\n"
    for run_id in ("0" * 32, run.id):
        waiting = root / "mlruns/unsent" / f"{run_id}.jsonl"
        waiting.parent.mkdir(exist_ok=True)
        waiting.write_text(line)
    with pytest.raises(ValueError, match=rf"^mlruns/unsent/{'0' * 32}\.jsonl: .*not found.*delete the file") as told:
        tracking.send_waiting(root)
    assert "\n" not in str(told.value)
    assert steps(client, run, "a") == [3]
    assert [path.stem for path in waiting.parent.glob("*.jsonl")] == ["0" * 32]


def test_a_run_that_was_killed_before_it_had_its_settings_gets_them_when_it_goes_on(
    root: Path, client: MlflowClient
) -> None:
    experiment = client.get_experiment_by_name("cells")
    assert experiment is not None
    killed = client.create_run(experiment.experiment_id)
    with started(root, run_id=killed.info.run_id) as run:
        pass
    assert logged(client, run).data.params == {"train.batch": "4"}
    assert "config.json" in files(root, run)
    with started(root, run_id=run.id, params={"train.batch": 5}):
        pass
    assert logged(client, run).data.params == {"train.batch": "4"}


def test_a_run_that_is_resumed_is_told_first_what_waits(root: Path, client: MlflowClient) -> None:
    with started(root) as run:
        run.metrics({"a": 1.0}, 1)
    waiting = root / "mlruns/unsent" / f"{run.id}.jsonl"
    waiting.parent.mkdir(exist_ok=True)
    waiting.write_text(f"{to_line('metrics', {'points': [('a', 2.0, 1700000000000, 2)]})}\n")
    with started(root, run_id=run.id) as run:
        for step in (1, 2, 3):
            run.metrics({"a": 9.0}, step)
    history = client.get_metric_history(run.id, "a")
    assert sorted((each.step, each.value) for each in history) == [(1, 1.0), (2, 2.0), (3, 9.0)]


def test_a_server_is_used_where_one_is_set(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    with started(tmp_path, system_metrics=True) as run:
        run.metrics({"train/loss": 1.0}, 1)
        run.image(IMAGE, "validation/a", 1)
        run.end_as("KILLED", "slow")
    with started(tmp_path, run_id=run.id) as run:
        run.metrics({"train/loss": 1.0}, 1)
        run.metrics({"train/loss": 0.5}, 2)
    client = MlflowClient(url)
    assert logged(client, run).info.status == "FINISHED"
    assert steps(client, run, "train/loss") == [1, 2]
    assert {item.path for item in client.list_artifacts(run.id)} == {"config.json", "images"}
    assert len(list((folder / "kept").rglob(f"{run.id}/artifacts/config.json"))) == 1
    assert tracking.find_run("cells", {"digest": "d1"}, root=tmp_path) == run.id
    assert not list(tmp_path.iterdir())
