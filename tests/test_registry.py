"""A version of the registered model is a run's checkpoint; the tests share a store and keep apart by digests."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

import cellseg
from cellseg import tracking
from cellseg.registry import model_file, register

pytestmark = pytest.mark.usefixtures("no_server", "booting_server")  # the server comes up while other tests run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("a root") / "with spaces"


@pytest.fixture
def client(root):
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def trained(root, digest, content="weights"):
    """The id of a run that has a checkpoint."""
    root.mkdir(exist_ok=True)
    (root / "best.pt").write_text(content)
    tags = {"recipe": "demo", "data": "cells", "digest": digest}
    with tracking.start(
        "e", f"final {content}", root=root, params={}, config={}, tags=tags, system_metrics=False
    ) as run:
        run.artifact(root / "best.pt", "checkpoints")
    return run.id


def content(uri, root):
    with model_file(uri, root) as path:
        return path.read_text()


def best(root):
    return content("models:/cellseg@best", root)


def test_a_version_is_the_checkpoint_of_its_run_and_nothing_else(root, client):
    run_id = trained(root, "d1", "one")
    version, _ = register(run_id, 0.36125, root=root)
    with model_file(f"models:/cellseg/{version}", root) as path:
        assert path == root / "mlruns/e" / run_id / "artifacts/checkpoints/best.pt"
    assert [each.name for each in path.parent.iterdir()] == ["best.pt"]
    found = client.get_model_version("cellseg", str(version))
    assert (found.run_id, found.status) == (run_id, "READY")
    assert found.tags == {"recipe": "demo", "data": "cells", "digest": "d1", "AP50": "0.3613"}
    assert found.description == f"final one: AP50 0.361 on held-back images of cells (digest d1); run {run_id}"
    assert client.get_run(run_id).data.tags["registered"] == f"cellseg/{version}"
    assert "state_dict" in client.get_registered_model("cellseg").description


def test_best_is_the_highest_ap50_and_of_equals_the_newest(root):
    answers = [
        register(trained(root, "d2", f"{n}"), ap50, root=root).best for n, ap50 in enumerate((0.3, 0.2, 0.4, 0.4))
    ]
    assert answers == [True, False, True, True]
    assert best(root) == "3"


def test_best_is_of_the_data_that_was_trained_on_last(root):
    for digest, ap50, expected in (("d3", 0.5, "d3 0.5"), ("d4", 0.1, "d4 0.1"), ("d3", 0.2, "d3 0.5")):
        register(trained(root, digest, f"{digest} {ap50}"), ap50, root=root)
        assert best(root) == expected


def test_a_network_without_ap50_is_best_where_no_other_has_one(root, client):
    register(trained(root, "d5", "all images"), None, root=root)
    assert best(root) == "all images"
    register(trained(root, "d5", "all images again"), None, root=root)
    assert best(root) == "all images again"
    register(trained(root, "d5", "judged"), 0.0, root=root)
    assert best(root) == "judged"
    version, is_best = register(trained(root, "d5", "all images once more"), None, root=root)
    assert not is_best
    found = client.get_model_version("cellseg", str(version))
    assert "AP50" not in found.tags
    assert "no AP50, as it was trained on all images of cells" in found.description


def test_a_run_that_is_registered_again_keeps_its_version(root):
    run_id = trained(root, "d6")
    assert register(run_id, 0.1, root=root) == register(run_id, 0.1, root=root)


def test_a_run_that_the_store_lacks_is_not_registered(root):
    with pytest.raises(ValueError, match=r"^MLflow: .*beef.*not found"):
        tracking.register("beef", 0.1, root=root)


def test_a_file_of_a_run_is_found_by_the_runs_address(root):
    run_id = trained(root, "d7", "mine")
    assert content(f"runs:/{run_id}", root) == "mine"
    assert content(f"runs:/{run_id}/config.json", root) == "{}"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/cellseg@worst", "not found"),
        ("models:/cellseg/999", "not found"),
        ("models:/nuclei@best", "not found"),
        ("runs:/beef", "not found"),
        ("models:/cellseg", "expected models:/cellseg@best, models:/cellseg/1 or runs:/RUN_ID"),
        ("best.pt", "expected models:/cellseg@best"),
    ],
)
def test_an_address_of_nothing_is_refused_in_one_line(root, uri, message):
    register(trained(root, "d8"), 0.1, root=root)
    with pytest.raises(ValueError, match=message) as caught:
        content(uri, root)
    assert str(caught.value).startswith(f"{uri}: ")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_was_deleted_or_is_a_folder_is_refused_in_one_line(root):
    run_id = trained(root, "d9")
    with pytest.raises(ValueError, match="expected a file, found the folder"):
        content(f"runs:/{run_id}/checkpoints", root)
    with model_file(f"runs:/{run_id}", root) as path:
        path.unlink()
    with pytest.raises(ValueError, match=rf"^runs:/{run_id}: not found \(No such .*best\.pt'\)"):
        content(f"runs:/{run_id}", root)


class Touch:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_what_is_pickled_behind_an_address_is_refused_and_never_run(root, tmp_path, monkeypatch):
    run_id = trained(root, "d12")
    register(run_id, 0.1, root=root)
    with model_file(f"runs:/{run_id}", root) as path:
        torch.save(Touch(tmp_path / "ran"), path)
    monkeypatch.chdir(root)
    for address in ("models:/cellseg@best", f"runs:/{run_id}"):
        with pytest.raises(ValueError, match="pickled objects"):
            cellseg.load(address, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_an_alias_that_another_sets_at_the_same_moment_is_looked_at_again(root, monkeypatch):
    asked = []
    set_alias = MlflowClient.set_registered_model_alias

    def refuse_the_first(client, name, alias, version):
        asked.append(version)
        if len(asked) == 1:
            set_alias(client, name, alias, "1" if version != "1" else "2")  # the other's
            raise MlflowException("UNIQUE constraint failed")
        set_alias(client, name, alias, version)

    register(trained(root, "d10"), 0.2, root=root)
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", refuse_the_first)
    assert register(trained(root, "d10"), 0.9, root=root).best
    assert len(asked) == 2


def test_a_refused_alias_is_told_in_one_line(root, monkeypatch):
    def refuse(*arguments):
        raise MlflowException("not yours", PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", refuse)
    with pytest.raises(ValueError, match=r"^MLflow: not yours"):
        tracking.register(trained(root, "d11"), 0.9, root=root)


def test_a_root_without_a_store_is_left_without_one(tmp_path):
    with pytest.raises(ValueError, match=r"no mlflow\.db in .*MLFLOW_TRACKING_URI"):
        best(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_several_may_register_with_a_server_at_once_and_its_file_is_fetched_for_a_while(server, tmp_path, monkeypatch):
    url, _ = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    runs = {trained(tmp_path, "d1", f"{number}"): number / 10 for number in range(4)}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(partial(register, root=tmp_path), runs, runs.values()))
    assert len({answer.version for answer in answers}) == 4
    passing = tmp_path / "passing"
    passing.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(passing))
    with model_file("models:/cellseg@best", tmp_path) as fetched:
        assert fetched.read_text() == "3"
        assert passing in fetched.parents
    with pytest.raises(ValueError, match="not found"):
        content("models:/cellseg@worst", tmp_path)
    assert list(passing.iterdir()) == []
