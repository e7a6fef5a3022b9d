"""What is run, and what is not run again; test_accuracy.py runs it as a user does."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import contest
import pytest
import records
from contest import Terms, begin_anew_unless, hold
from contestants import Trained

from cellseg.config_fields import replaced
from cellseg.experiment import Prepared


@dataclass
class Fake:
    """A contestant that finds nothing, or what it is given, and says what it was asked for."""

    prepared: Prepared
    rate: float = 2.0
    asked: list = field(default_factory=list)
    results: list = field(default_factory=list)

    def settings(self):
        return {"rate": self.rate}

    def step_seconds(self):
        self.asked.append("rate")
        return self.rate

    def train(self, steps, seed, folder, tell):
        self.asked.append((steps, seed))
        return Trained(steps, 1.0, 5, self.results)


@pytest.fixture
def held(prepared, tmp_path, monkeypatch):
    """Holds a contest of made-up contestants; returns what they were asked for."""

    def of(*names, seeds=(0, 1), seconds=10.0, rate=2.0, split=0, clock=None):
        fakes = {name: Fake(prepared, rate) for name in names}
        monkeypatch.setattr(contest, "contestant", lambda name, data, device, split: fakes[name])
        hold(Terms(Path("data"), tmp_path / "data.json", "10 s", seconds, None, "cpu", split, clock), names, seeds)
        return [fake.asked for fake in fakes.values()]

    return of


def test_steps_are_the_time_over_the_rate(held):
    assert held("a", "b") == [["rate", (5, 0), (5, 1)]] * 2
    assert held("c", seeds=(0,), seconds=0.5) == [["rate", (1, 0)]]


@pytest.mark.parametrize(("load", "doubted"), [(0.3, False), (2.5, True)])
def test_a_rate_that_was_measured_beside_other_work_is_doubted(held, monkeypatch, capsys, load, doubted):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    for _ in range(2):  # measured, and read from the record
        held("a", seeds=())
        said = capsys.readouterr().out
        assert "a: 2.000 s a step, 5 steps in 10 s" in said
        assert (f"beside other work (load {load})" in said) == doubted


def test_neither_rates_nor_trainings_on_record_are_done_again(held):
    held("a", seeds=(0,))
    assert held("a") == [[(5, 1)]]
    assert held("a", rate=1.0) == [["rate", (10, 0), (10, 1)]]  # another config


def test_another_device_or_split_takes_over_no_training(held, tmp_path, monkeypatch):
    held("a", seeds=(0,))
    folder = tmp_path / "runs/data/a 10 s seed 0"
    before = (folder / "training.json").read_text()
    monkeypatch.setattr(Terms, "own_name", "another")
    assert held("a", seeds=(0,)) == [["rate", (5, 0)]]
    assert (folder / "training.json").read_text() != before
    assert held("a", seeds=(0,), split=1) == [[(5, 0)]]
    assert (tmp_path / "runs/data/a 10 s seed 0 split 1").is_dir()
    assert len(records.read(tmp_path / "data.json").records) == 3


def test_a_table_goes_on_elsewhere_by_the_rates_of_its_device(held, tmp_path, monkeypatch):
    monkeypatch.setattr(Terms, "own_name", "first")
    held("a", seeds=(0,))
    monkeypatch.setattr(Terms, "own_name", "second")
    assert held("a", clock="first") == [[(5, 1)]]  # seed 0 is on record
    here, there = records.read(tmp_path / "data.json").records
    assert (here.device, here.trained_on, there.device, there.trained_on) == ("first", "", "first", "second")
    with pytest.raises(ValueError, match=r"--clock first: .* has no rate of b there, and this is second"):
        held("b", clock="first")


def test_a_record_says_on_what_it_was_scored(held, prepared, tmp_path):
    held("a", seeds=(3,))
    (record,) = records.read(tmp_path / "data.json").records
    assert (record.recipe, record.seed, record.budget, record.steps, record.parameters) == ("a", 3, "10 s", 5, 5)
    assert record.held_out == tuple(prepared.data.records[index].name for index in prepared.validation)
    assert record.data == prepared.data.digest
    assert record.metrics["AP50"] == 0.0
    assert set(record.per_class) == {"class1", "class2"}


def test_pq_is_that_of_one_threshold_whatever_the_recipe_s_is(prepared, tmp_path, monkeypatch):
    cells = prepared.data.truth(prepared.validation)["annotations"]
    keys = ("image_id", "category_id", "bbox", "segmentation")
    for threshold in (0.3, 0.7):
        own = replace(prepared, config=replaced(prepared.config, {"predict.pq_threshold": threshold}))
        for score, found in ((0.45, 0.0), (0.55, 1.0)):
            fake = Fake(own, results=[{key: each[key] for key in keys} | {"score": score} for each in cells])
            monkeypatch.setattr(contest, "contestant", lambda *_, fake=fake: fake)
            file = tmp_path / f"{threshold} {score}.json"
            hold(Terms(Path("data"), file, "1 steps", 1.0, 1, "cpu"), ["a"], [0])
            (record,) = records.read(file).records
            assert (record.metrics["AP50"], record.metrics["PQ"]) == (1.0, found)


def test_a_folder_is_emptied_where_another_training_was_begun_in_it(tmp_path):
    folder = tmp_path / "run"
    begin_anew_unless(folder, {"steps": 2})
    (folder / "last.pt").write_text("x")
    begin_anew_unless(folder, {"steps": 2})
    assert (folder / "last.pt").exists()
    begin_anew_unless(folder, {"steps": 3})
    assert not (folder / "last.pt").exists()
