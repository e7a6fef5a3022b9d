from dataclasses import replace

import pytest
from records import Book, Rate, Record, add, digest_of, read

RATE = Rate("demo", "c1", "d1", "cpu", 0.5, "0.1", "2026-01-01")
RECORD = Record(
    recipe="demo",
    seed=0,
    budget="15 min",
    config="c1",
    data="d1",
    device="cpu",
    steps=10,
    seconds=5.0,
    parameters=3,
    metrics={"AP50": 0.5},
    per_class={"class1": {"AP50": 0.5}},
    held_out=("a", "b"),
    date="2026-01-01",
    commit="abc",
    torch="2.15",
)
IDENTITY = ("demo", 0, "15 min", "c1", "d1", "cpu")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new folder" / "consep.json"
    add(RATE, path)
    book = add(RECORD, path)
    assert read(path) == book == Book((RATE,), (RECORD,))


def test_a_file_that_is_not_there_is_an_empty_book(tmp_path):
    assert read(tmp_path / "none.json") == Book()


@pytest.mark.parametrize("place", range(6))
def test_a_record_is_found_by_all_that_it_depends_on(place):
    book = Book(records=(RECORD,))
    assert book.record(*IDENTITY) == RECORD
    other = list(IDENTITY)
    other[place] = 1 if place == 1 else "other"
    assert book.record(*other) is None


@pytest.mark.parametrize("field", ["recipe", "config", "data", "device"])
def test_a_rate_is_found_by_all_that_it_depends_on(field):
    wanted = {"recipe": "demo", "config": "c1", "data": "d1", "device": "cpu"}
    assert Book((RATE,)).rate(**wanted) == RATE
    assert Book((RATE,)).rate(**wanted | {field: "other"}) is None


def test_a_record_takes_the_place_of_its_like_and_not_of_another_seed_or_config():
    again, changed, seed = (
        replace(RECORD, **field) for field in ({"date": "2027-01-01"}, {"config": "c2"}, {"seed": 1})
    )
    assert Book(records=(RECORD,)).having(again).records == (again,)
    assert Book(records=(RECORD,)).having(changed).having(seed).records == (RECORD, changed, seed)


def test_the_digest_of_settings_knows_no_order():
    assert digest_of({"a": 1, "b": (2, 3)}) == digest_of({"b": [2, 3], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
