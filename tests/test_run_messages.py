import numpy as np
import pytest
from mlflow import MlflowClient

from cellseg import run_messages
from cellseg.run_messages import from_line, tell, to_line

pytestmark = pytest.mark.usefixtures("no_server")
IMAGE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
MESSAGES = [
    ("metrics", {"points": [["loss", 0.1 + 0.2, 1700000000000, 3]]}),
    ("params", {"params": {"train.batch": "4"}}),
    ("tag", {"key": "kernel", "value": "größer\n2"}),
    ("dataset", {"dataset": "cells", "digest": "d1", "source": "/data/cells"}),
    ("content", {"content": bytes(range(256)), "path": "curves/epoch-001.png"}),
    ("content", {"content": b"{}", "path": "config.json"}),
    ("image", {"image": IMAGE, "key": "validation/a", "step": 3, "timestamp": 1700000000000}),
    ("end", {"status": "KILLED", "timestamp": 1700000001000}),
]


@pytest.mark.parametrize(("name", "values"), MESSAGES)
def test_a_message_is_the_same_after_it_was_a_line(name, values):
    line = to_line(name, values)
    assert "\n" not in line
    found, read = from_line(line)
    assert found == name
    assert read.keys() == values.keys()
    for key, value in values.items():
        np.testing.assert_array_equal(read[key], value)


def test_what_is_no_message_is_refused():
    with pytest.raises(ValueError, match="Expecting"):
        from_line("half a li")


def test_mlflow_has_what_it_was_told(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("cells", artifact_location=(tmp_path / "kept").as_uri())
    run_id = client.create_run(experiment).info.run_id
    (tmp_path / "best.pt").write_text("weights")
    for name, values in [*MESSAGES, ("file", {"path": str(tmp_path / "best.pt"), "folder": "checkpoints"})]:
        tell(client, run_id, *from_line(to_line(name, values)))
    found = client.get_run(run_id)
    (point,) = client.get_metric_history(run_id, "loss")
    assert (point.value, point.timestamp, point.step) == (0.1 + 0.2, 1700000000000, 3)
    assert found.data.params == {"train.batch": "4"}
    assert found.data.tags["kernel"] == "größer\n2"
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.tags[0].value) == ("cells", "d1", "training")
    files = {
        path.relative_to(tmp_path / "kept" / run_id / "artifacts"): path for path in tmp_path.rglob("kept/*/*/**/*.*")
    }
    kept = {str(path): file.read_bytes() for path, file in files.items()}
    assert kept["curves/epoch-001.png"] == bytes(range(256))
    assert kept["config.json"] == b"{}"
    assert kept["checkpoints/best.pt"] == b"weights"
    assert [path for path in kept if path.startswith("images/") and "step+3+timestamp+1700000000000" in path]
    assert (found.info.status, found.info.end_time) == ("KILLED", 1700000001000)


def test_every_message_has_a_call():
    assert {name for name, _ in MESSAGES} | {"file", "register"} == set(run_messages.CALLS)
