"""Answers of networks that were asked in other ways: what is compared with what, and what is called noise."""

from dataclasses import replace

import pytest
from accuracy_table import METRICS
from answers import BASE, SETTINGS, TOGETHER, Answer, read, report, signed
from inference import HERE

from cellseg.config import RunConfig
from cellseg.config_fields import replaced


def answer(setting, seed, ap50, uncapped=0.5, checkpoints=()):
    """One of checkpoints whose digests are given; of none, as in records that do not tell."""
    metrics = dict.fromkeys(METRICS, 0.25) | {"AP50": ap50, "AP50_uncapped": uncapped}
    return Answer(setting, seed, "".join(checkpoints), metrics, tuple(checkpoints))


def test_gains_are_of_the_same_network():
    answers = [answer(BASE, 0, 0.2), answer(BASE, 1, 0.4), answer("views 2", 0, 0.21), answer("views 2", 1, 0.43)]
    lines = report([*answers, answer(TOGETHER, -1, 0.35)], [BASE, "views 2", TOGETHER]).splitlines()
    assert lines[2].startswith(f"| {BASE} | .300 | .250 |")
    assert "| +0.020 (+0.010 to +0.030) |" in lines[3]
    assert "| +0.050 (+0.050 to +0.050) |" in lines[4]  # over the mean of both


def test_a_network_that_was_trained_anew_is_not_compared_with_the_old_one():
    old = [answer(BASE, 0, 0.2), answer(BASE, 1, 0.4), answer("views 2", 0, 0.21), answer("views 4", 1, 0.43)]
    anew = [answer(BASE, 0, 0.3, checkpoints="x"), *old[1:], answer(TOGETHER, -1, 0.9, checkpoints="xz")]
    said = report(anew, [BASE, "views 2", "views 4", TOGETHER])
    assert "| views 2 |" not in said
    assert "| views 4 | .430 |" in said
    assert said.endswith(f'were not asked "{BASE}": views 2 (seed 0), {TOGETHER} (seed -1)')
    later = [answer(BASE, 0, 0.2, checkpoints="x"), answer("views 2", 0, 0.21, checkpoints="y")]
    assert "| views 2 |" not in report(later, [BASE, "views 2"])
    assert report(later[1:], ["views 2"]).startswith("left out")


def test_an_answer_is_compared_with_an_older_record_of_its_own_checkpoint():
    bases = [replace(answer(BASE, seed, 0.2 * seed), network=f"{seed}") for seed in (1, 2, 3)]
    answers = [*bases, answer("views 2", 1, 0.21, checkpoints="1"), answer(TOGETHER, -1, 0.35, checkpoints="12")]
    said = report(answers, [BASE, "views 2", TOGETHER])
    assert "| +0.010 (+0.010 to +0.010) |" in said
    assert "| +0.050 (+0.050 to +0.050) |" in said  # over the mean of the two that predict together


def test_answers_on_record_without_checkpoints_are_all_reported():
    for file in HERE.glob("*-inference.json"):
        answers = read(file)
        said = report(answers, list(SETTINGS))
        assert "left out" not in said
        assert all(f"| {each.setting} |" in said for each in answers)


def test_seeds_that_disagree_are_noise():
    assert signed([-0.01, 0.03]) == "+0.010 (-0.010 to +0.030), noise"
    assert signed([0.0, 0.0]) == "+0.000 (+0.000 to +0.000), noise"
    assert signed([-0.02, -0.01]) == "-0.015 (-0.020 to -0.010)"


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_a_config(setting):
    fields = SETTINGS[setting]
    predict = replaced(RunConfig(), {f"predict.{name}": value for name, value in fields.items()}).predict
    assert {name: getattr(predict, name) for name in fields} == fields
