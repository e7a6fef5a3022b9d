"""An open run tells its outbox; test_tracking.py looks at what a store has in the end."""

import json
import threading

import pytest
from matplotlib.figure import Figure

from cellseg import run_store  # noqa: F401  what imports mlflow imports it first
from cellseg.open_run import Run


class Recorder:
    """An outbox that keeps what it is told."""

    def __init__(self):
        self.messages = []
        self.closed = False

    def send(self, name, **values):
        self.messages.append((name, values))

    def close(self):
        self.closed = True


@pytest.fixture
def outbox():
    return Recorder()


def points(outbox):
    """(name, value, step) of all metrics."""
    sent = [point for name, values in outbox.messages if name == "metrics" for point in values["points"]]
    return [(name, value, step) for name, value, _, step in sent]


def test_metrics_wait_for_others_and_leave_out_what_is_known_or_not_finite(outbox):
    run = Run("beef", outbox, {"a": 2})
    for step in (1, 2, 3):
        run.metrics({"a": step / 2, "b: odd": 1.0, "c": float("nan")}, step)
    assert outbox.messages == []
    run.flush()
    assert points(outbox) == [("b_ odd", 1.0, 1), ("b_ odd", 1.0, 2), ("a", 1.5, 3), ("b_ odd", 1.0, 3)]


def test_the_end_is_told_last_with_its_reason_in_one_line(outbox):
    run = Run("beef", outbox)
    run.metrics({"a": 1.0}, 1)
    run.end_as("FAILED", "too\n  large")
    run.close()
    assert [name for name, _ in outbox.messages] == ["metrics", "tag", "end"]
    assert outbox.messages[1][1] == {"key": "failure", "value": "too large"}
    assert outbox.messages[2][1]["status"] == "FAILED"
    assert outbox.closed


def test_files_are_told_as_they_are_and_figures_and_json_as_their_bytes(outbox, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.pt").touch()
    run = Run("beef", outbox)
    run.artifact((tmp_path / "best.pt").relative_to(tmp_path), "checkpoints")
    run.json({"a": 1}, "config.json")
    run.figure(Figure(), "curves/one.png")
    (_, file), (_, config), (_, figure) = outbox.messages
    assert file == {"path": str(tmp_path / "best.pt"), "folder": "checkpoints"}  # wherever it is sent from later
    assert json.loads(config["content"]) == {"a": 1}
    assert figure["content"].startswith(b"\x89PNG")
    with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such file to keep in run beef"):
        run.artifact(tmp_path / "gone.pt")


def test_metrics_of_two_threads_arrive_in_the_order_in_which_they_were_logged(outbox, monkeypatch):
    run, begun, may_go_on, send = Run("beef", outbox), threading.Event(), threading.Event(), outbox.send

    def slow(name, **values):
        if not begun.is_set():
            begun.set()
            assert may_go_on.wait(60)
        send(name, **values)

    monkeypatch.setattr(outbox, "send", slow)
    run.metrics({"a": 1.0}, 1)
    first = threading.Thread(target=run.flush)
    first.start()
    assert begun.wait(60)
    run.metrics({"a": 2.0}, 2)
    second = threading.Thread(target=run.flush)
    second.start()
    second.join(0.2)
    may_go_on.set()
    first.join()
    second.join()
    assert points(outbox) == [("a", 1.0, 1), ("a", 2.0, 2)]
