"""A store that is away, or refuses, is a function that raises; real servers are in tests/faults."""

import logging
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from cellseg import outbox
from cellseg.outbox import Outbox


class Store:
    """Takes messages while it is there."""

    def __init__(self):
        self.there = True
        self.refused = None
        self.asked = 0
        self.told = []

    def tell(self, client, run_id, name, values):
        self.asked += 1
        if not self.there:
            raise MlflowException("API request failed with exception\nConnection refused")
        if name == "file":
            self.told.append((Path(values["path"]).name, values["folder"], Path(values["path"]).read_text()))
            return "taken"
        if values["key"] == self.refused:
            raise MlflowException("too long", INVALID_PARAMETER_VALUE)
        self.told.append(values["key"])
        return "taken"


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "RETRY_RATIO", 0.0)
    store = Store()
    monkeypatch.setattr(outbox, "tell", store.tell)
    return store


@pytest.fixture
def box(tmp_path):
    return Outbox(None, "beef", tmp_path)


def send(box, *keys):
    return [box.send("tag", key=key, value="") for key in keys]


def test_a_store_that_is_there_is_told_at_once(store, box, tmp_path):
    assert send(box, "a", "b") == ["taken", "taken"]
    box.close()
    assert store.told == ["a", "b"]
    assert list(tmp_path.iterdir()) == []


def test_what_was_said_while_the_store_was_away_arrives_first_and_in_order(store, box, tmp_path, caplog):
    send(box, "a")
    store.there = False
    assert send(box, "b", "c") == [None, None]
    assert box.waiting == tmp_path / "mlruns/unsent/beef.jsonl"
    assert len(box.waiting.read_text().splitlines()) == 2
    store.there = True
    caplog.set_level(logging.INFO, "cellseg")
    assert send(box, "d") == ["taken"]
    assert store.told == ["a", "b", "c", "d"]
    assert not box.waiting.exists()
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "MLflow is away",  # said once, though it was away twice
        "run beef: 2 messages that waited have reached MLflow",
    ]


def test_a_store_that_was_away_is_left_alone_for_a_while(store, box, monkeypatch):
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 3600.0)
    store.there = False
    send(box, "a", "b", "c")
    assert store.asked == 1
    store.there = True
    box.close()
    assert store.told == ["a", "b", "c"]


def test_what_has_not_arrived_at_the_end_waits_for_the_command_that_sends_it(store, box, caplog, tmp_path):
    store.there = False
    send(box, "a", "b")
    box.close()
    assert caplog.messages[-1].endswith(f"waits in {box.waiting}, and `cellseg track sync` sends it")
    store.there = True
    another = Outbox(None, "beef", tmp_path)
    assert another.send_waiting() == 2
    assert store.told == ["a", "b"]
    assert another.send_waiting() == 0


def test_a_store_that_goes_away_again_has_the_rest_to_come(store, box, monkeypatch):
    store.there = False
    send(box, "a", "b", "c")
    tell = store.tell

    def once(*arguments):
        store.there = not store.told
        return tell(*arguments)

    monkeypatch.setattr(outbox, "tell", once)
    with pytest.raises(MlflowException, match="Connection refused"):
        box.send_waiting()
    monkeypatch.setattr(outbox, "tell", tell)
    store.there = True
    assert box.send_waiting() == 2
    assert store.told == ["a", "b", "c"]


def test_a_refusal_is_no_absence(store, box):
    store.refused = "b"
    with pytest.raises(MlflowException, match="too long"):
        send(box, "a", "b")
    assert not box.waiting.exists()


def test_a_message_that_is_refused_later_stays_with_those_after_it(store, box):
    store.there = False
    send(box, "a", "b", "c")
    store.there, store.refused = True, "b"
    with pytest.raises(MlflowException, match="too long"):
        box.send_waiting()
    assert store.told == ["a"]
    assert len(box.waiting.read_text().splitlines()) == 2


def test_a_line_in_which_its_process_was_killed_is_left_out(store, box):
    store.there = False
    send(box, "a", "b")
    text = box.waiting.read_text()
    box.waiting.write_text(text[:-5])
    store.there = True
    assert box.send_waiting() == 1
    assert store.told == ["a"]


def test_a_file_that_waits_is_kept_though_its_own_is_deleted(store, box, tmp_path):
    own = tmp_path / "best.pt"
    store.there = False
    for content in ("first", "second"):
        own.write_text(content)
        box.send("file", path=str(own), folder="checkpoints")
    own.unlink()
    assert [path.read_text() for path in box.copies.rglob("*.pt")] == ["second"]
    store.there = True
    assert box.send_waiting() == 2
    assert store.told == [("best.pt", "checkpoints", "second")] * 2
    assert list((tmp_path / "mlruns/unsent").glob("beef*")) == []


def test_a_file_that_waited_and_was_deleted_is_named_and_holds_up_nothing(store, box, tmp_path, caplog):
    own = tmp_path / "best.pt"
    own.write_text("some")
    store.there = False
    box.send("file", path=str(own), folder=None)
    send(box, "a")
    (box.copies / "best.pt").unlink()
    store.there = True
    assert box.send_waiting() == 2
    assert store.told == ["a"]
    assert "best.pt" in caplog.text
    assert "left out" in caplog.text
