import json
import os

import pytest

from cellseg.command_line import chosen_by_hand
from cellseg.config_fields import replaced
from cellseg.recipes import RECIPES
from cellseg.winner import Winner, read_winner, write_winner

OVERRIDES = {"train.learning_rate": 0.002, "model.anchor_sizes": [4.0, 8.0, 16.0], "augment.flips": False}


def winner(study, digest="d1gest", recipe="demo", **values):
    return Winner(study, digest, recipe, trial=3, value=0.25, overrides=values or OVERRIDES)


def written(folder, won, seconds):
    """Write a winner as if so many seconds after the start of time."""
    path = write_winner(won, folder)
    os.utime(path, (seconds, seconds))
    return path


def test_what_is_written_is_read(tmp_path):
    path = write_winner(winner("s"), tmp_path)
    assert path == tmp_path / "s" / "best.json"
    assert read_winner(tmp_path, "d1gest", "demo") == winner("s")
    assert read_winner(tmp_path, "d1gest", "demo", "s") == winner("s")
    assert [each.name for each in path.parent.iterdir()] == ["best.json"]


def test_no_study_has_no_winner(tmp_path):
    assert read_winner(tmp_path, "d1gest", "demo") is None
    assert read_winner(tmp_path / "gone", "d1gest", "demo") is None


def test_the_newest_winner_on_the_same_data_and_recipe_is_taken(tmp_path):
    written(tmp_path, winner("older"), 1000)
    written(tmp_path, winner("newest of its kind"), 2000)
    written(tmp_path, winner("a, older by name"), 1500)
    written(tmp_path, winner("other data", digest="another"), 3000)
    written(tmp_path, winner("other recipe", recipe="best"), 4000)
    assert read_winner(tmp_path, "d1gest", "demo").study == "newest of its kind"
    assert read_winner(tmp_path, "d1gest", "best").study == "other recipe"
    assert read_winner(tmp_path, "d1gest", "reference") is None
    assert read_winner(tmp_path, "d1gest", "demo", "older").study == "older"


def test_a_named_study_on_other_data_or_recipe_is_refused(tmp_path):
    write_winner(winner("s"), tmp_path)
    for digest, recipe in (("another", "demo"), ("d1gest", "best")):
        with pytest.raises(ValueError, match=f"it searched demo on data d1gest, this is {recipe} on data {digest}"):
            read_winner(tmp_path, digest, recipe, "s")


def test_a_named_study_without_a_winner_is_refused_with_those_that_have_one(tmp_path):
    write_winner(winner("s"), tmp_path)
    write_winner(winner("a"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"--from-study t: no .*best\.json; studies with a winner: a, s"):
        read_winner(tmp_path, "d1gest", "demo", "t")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", json.dumps({"study": "s"}), json.dumps({"more": 1}), "\x80"])
def test_a_broken_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "best.json").write_text(content, encoding="latin-1")
    for study in (None, "s"):
        with pytest.raises(
            ValueError, match=r"best\.json: expected the winner of a study, got .*search again"
        ) as caught:
            read_winner(tmp_path, "d1gest", "demo", study)
        assert "\n" not in str(caught.value)


def test_the_winner_s_fields_are_applied_but_for_those_chosen_by_hand():
    by_hand = replaced(RECIPES["demo"](), {"train.learning_rate": 0.5, "seed": 9})
    config = winner("s").applied(by_hand, chosen_by_hand(by_hand))
    assert config.train.learning_rate == 0.5
    assert config.seed == 9
    assert config.model.anchor_sizes == (4.0, 8.0, 16.0)
    assert config.augment.flips is False


def test_a_winner_with_a_field_that_is_gone_is_refused():
    with pytest.raises(ValueError, match=r"unknown field train\.gone"):
        winner("s", **{"train.gone": 1}).applied(RECIPES["demo"](), {})
