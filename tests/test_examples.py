"""The example scripts run as they are."""

import shutil

import pytest
from scripts import ROOT, SMALL, run, run_process

from cellseg.sample import write

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a sample and a network that was trained on it for a moment."""
    folder = tmp_path_factory.mktemp("examples")
    write(folder / "data", train=2, test=1)
    run(folder, ROOT / "experiments/final_train.py", *SMALL, "--all-data", "--train.epochs", "1")
    (best,) = folder.glob("experiments/runs/*/*/best.pt")
    shutil.copy(best, folder / "best.pt")
    return folder


def test_the_competitor_s_ends_in_a_submission(place):
    flags = dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    fields = [f"{name[2:].replace('-', '_')}={value}" for name, value in flags.items() if name != "--recipe"]
    fields = [each.replace("mask_channels=8", "mask_channels=(8,)") for each in fields]
    said = run(place, EXAMPLES / "competition.py", "data", *fields, "train.epochs=1")
    assert "submission.zip: " in said
    assert run(place, "cellseg", "lint", "submission.zip", "data/test_image_name_to_ids.json").endswith("no problem\n")


def test_the_biologist_s_counts_and_writes_files(place):
    (image,) = (place / "data/test_release").glob("*.tif")
    said = run(place, EXAMPLES / "biologist.py", "best.pt", image)
    assert said.startswith(image.name)
    assert said.count("cells, mean area") == 4
    assert sorted(path.name for path in image.parent.iterdir() if path != image) == [
        f"{image.stem}.{ending}" for ending in ("geojson.json", "overlay.png", "rois.zip")
    ]


def test_the_developer_s_compares_two_backbones(place):
    said = run_process(place, EXAMPLES / "backbone.py", "data", "2")
    assert "mobilenet_v3: " in said
    assert said.count(" in 2 steps") == 2
