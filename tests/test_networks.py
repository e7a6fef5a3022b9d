"""Networks that were trained apart, asked together for what none of them has seen."""

import ingredients
import pytest
from networks import _shows
from scripts import ROOT, run
from test_accuracy import MICRO, trained

SCRIPT = ROOT / "benchmarks/networks.py"


@pytest.fixture
def checkpoints(folder, tmp_path, monkeypatch):
    """Of two splits, so that some images are held out by the one alone."""
    monkeypatch.setitem(ingredients.INGREDIENTS, "micro", MICRO)
    for split in (0, 1):
        trained(folder, tmp_path, "demo+micro", "--split-seed", split, steps=1)
    return sorted(tmp_path.glob("runs/*/*/last.pt"))


def test_each_is_asked_alone_and_all_together_for_images_that_none_has_seen(folder, tmp_path, checkpoints):
    said = run(tmp_path, SCRIPT, *checkpoints[:1], "--data", folder, "--device", "cpu", "--views", 2)
    assert "| 1 images, views 2 | AP50 | AP |" in said
    assert "together" not in said
    same = [checkpoints[0]] * 2
    lines = run(tmp_path, SCRIPT, *same, "--data", folder, "--device", "cpu").splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")][2:] == [
        *(f"| {path}" for path in same),
        "| together",
    ]


def test_images_that_all_have_been_trained_on_are_refused(folder, tmp_path, checkpoints):
    said = run(tmp_path, SCRIPT, *checkpoints, "--data", folder, "--device", "cpu", code=2)
    assert "trained one of the networks; leave networks out, or name other data" in said


def test_a_crop_shows_its_image_and_no_other():
    assert _shows("a y0 x64", "a")
    assert _shows("a", "a")
    assert not _shows("ab y0 x64", "a")
