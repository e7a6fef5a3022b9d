import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cellseg.cli import main
from cellseg.commands.inspect import Inspect
from cellseg.config import DatasetConfig
from cellseg.inspection import ap_ceilings, best_possible_recalls, inspect, most_shown
from cellseg.survey import survey

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def found(folder):
    return inspect(survey(folder, DatasetConfig()))


@pytest.fixture
def broken(folder, tmp_path):
    """The four images, of which the second has an empty file."""
    root = tmp_path / "squares"
    shutil.copytree(folder, root)
    (root / "train" / "image1" / "image.tif").write_bytes(b"")
    return root


def test_the_cells_of_each_class_are_told_by_name(found):
    assert found["plan"]["class_cells"] == {"class1": 15, "class2": 15, "class3": 1, "class4": 1}
    assert found["plan"]["class_cells"] == found["cells_per_class"]
    assert found["images_per_class"] == {"class1": 4, "class2": 4, "class3": 1, "class4": 1}
    assert found["plan"]["overlap"] == 64
    assert not {"images", "image_weights"} & set(found["plan"])


def test_sizes_counts_and_density_are_told_as_least_median_and_most(found):
    assert (found["height"], found["width"]) == ([72, 72, 72], [80, 80, 80])
    assert (found["cells"], found["cells_per_image"]) == (32, [8, 8, 8])
    assert found["cells_per_megapixel"] == [1389, 1389, 1389]  # 8 in 72 x 80 pixels
    assert found["cell_sides"] == {f"class{label}": [12, 12, 12] for label in range(1, 5)}


def test_all_is_json(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_class_with_few_cells_is_warned_of_and_nothing_else(found):
    (warning,) = found["warnings"]
    assert (warning["kind"], warning["names"]) == ("rare", ["class3", "class4"])


def test_the_five_images_that_are_shown_most_often_come_first_to_last(prepared):
    weights = (0.5, 1.5, 0.9, 1.1, 1.3, 0.7)
    plan = replace(prepared.plan, images=tuple("abcdef"), image_weights=weights)
    assert list(most_shown(plan).items()) == [("b", 1.5), ("e", 1.3), ("d", 1.1), ("c", 0.9), ("f", 0.7)]


def test_the_ceilings_are_means_over_the_classes_that_have_cells():
    ceilings = ap_ceilings(np.array([[200, 0, 40]]), ["a", "b", "c"])
    assert ceilings["per_class"] == {"a": 51 / 101, "b": None, "c": 1.0}  # recalls 0 to .5
    assert ceilings["100_per_class_and_image"] == pytest.approx((51 / 101 + 1) / 2)
    assert ceilings["100_per_image"] == pytest.approx((31 / 101 + 1) / 2)  # 40 of c first, 60 of 200 of a


def test_each_set_of_anchors_meets_the_boxes_that_are_its_own(prepared):
    plan = replace(prepared.plan, anchor_sizes=(20.0,) * 5, aspect_ratios=(1.0,))
    squares = np.array([[-s, -s, s, s] for s in (10, 16, 128, 32, 6)], np.float32)
    # sides 20, of the fitted, 32, 256 and 64, of torchvision's, and 12, of the reference's
    recalls = best_possible_recalls(squares, plan)
    assert recalls == {"torchvision": 0.6, "reference": 0.2, "fitted": 0.2}


def test_the_table_is_printed_and_the_figure_written_beside_where_one_stands(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert Inspect(folder).run() == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["images", "4"]
    assert last == f"figure: {folder.name}-inspect.png"
    assert [path.name for path in tmp_path.iterdir()] == [f"{folder.name}-inspect.png"]
    with Image.open(tmp_path / f"{folder.name}-inspect.png") as picture:
        assert picture.format == "PNG"


def test_json_names_the_figure(folder, tmp_path, found, capsys):
    path = tmp_path / "squares.png"
    assert Inspect(folder, json=True, figure=str(path)).run() == 0
    assert json.loads(capsys.readouterr().out) == {**found, "figure": str(path)}
    assert path.exists()


def test_none_writes_no_figure(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["cellseg", "inspect", str(folder), "--figure", "none"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "figure" not in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_broken_file_is_told_the_rest_inspected_and_the_code_1(broken, capsys):
    assert Inspect(broken, figure="none").run() == 1
    printed = capsys.readouterr().out
    assert re.search(r"images +3\n", printed)
    assert re.search(rf"broken +{re.escape(str(broken / 'train/image1/image.tif'))}:\s+expected a tif", printed)


def test_where_all_is_broken_the_reasons_are_told_and_the_code_is_2(broken, monkeypatch, capsys):
    for path in broken.glob("train/*/image.tif"):
        path.write_bytes(b"")
    monkeypatch.setattr("sys.argv", ["cellseg", "inspect", str(broken)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err.count("found an empty file") == 4


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_of_consep_the_caps_are_warned_of():
    found = inspect(survey(SHARED / "consep", DatasetConfig()))
    assert (found["images"], found["test_images"], found["cells"]) == (26, 9, 6021)
    assert [warning["kind"] for warning in found["warnings"]] == ["caps", "caps"]
    assert [len(warning["names"]) for warning in found["warnings"]] == [11, 12]
    assert found["ap_ceiling"]["100_per_class_and_image"] == pytest.approx(0.6163, abs=1e-4)  # the truth's own score
    assert found["best_possible_recall"]["torchvision"] < 0.4
    assert found["best_possible_recall"]["fitted"] > 0.85
