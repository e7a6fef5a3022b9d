from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.config import DatasetConfig
from cellseg.dataset import open_dataset
from cellseg.splits import choose, dealt, folds, groups_of, held_back, split, stain_clusters

SHARED = Path(__file__).parents[2] / "shared" / "data"


def tiny_set(root, colours, sources=None):
    """Images of 8 x 8 in plain colours, with one cell each, of class 1 and 2 in turn."""
    rows = ["id,split,source"]
    for number, colour in enumerate(colours):
        folder = root / "train" / f"{number:03}"
        folder.mkdir(parents=True)
        tifffile.imwrite(folder / "image.tif", np.full((8, 8, 3), colour, np.uint8), photometric="rgb")
        plane = np.zeros((8, 8))
        plane[2:5, 2:5] = 1
        tifffile.imwrite(folder / f"class{number % 2 + 1}.tif", plane, metadata=None)
        rows.append(f"{number:03},train,{sources[number] if sources else ''}")
    (root / "manifest.csv").write_text("\n".join(rows))
    return open_dataset(root, DatasetConfig())


def test_both_sides_together_are_all_images_once(tmp_path):
    data = tiny_set(tmp_path, [200] * 20)
    train, validation = split(data, 0.2, 0, grouped=False)
    assert sorted(train + validation) == list(range(20))
    assert train == sorted(train)
    assert validation == sorted(validation)
    assert len(validation) == 4
    assert sorted(number % 2 for number in validation) == [0, 0, 1, 1]  # two of each class


def test_the_seed_decides(tmp_path):
    data = tiny_set(tmp_path, [200] * 20)
    assert split(data, 0.2, 3, grouped=False) == split(data, 0.2, 3, grouped=False)
    assert len({tuple(split(data, 0.2, seed, grouped=False)[1]) for seed in range(5)}) > 1


def test_fraction_zero_and_a_single_image_leave_all_for_training(tmp_path):
    data = tiny_set(tmp_path / "two", [200, 100])
    assert split(data, 0, 0, grouped=True) == ([0, 1], [])
    assert split(tiny_set(tmp_path / "one", [200]), 0.2, 0, grouped=True) == ([0], [])


def test_images_without_a_cell_are_not_held_back_alone(tmp_path, caplog):
    tiny_set(tmp_path, [200] * 6)
    for plane in sorted(tmp_path.glob("train/*/class*.tif"))[1:]:
        tifffile.imwrite(plane, np.zeros((8, 8)), metadata=None)
    data = open_dataset(tmp_path, DatasetConfig())
    assert split(data, 0.2, 0, grouped=False) == ([0, 1, 2, 3, 4, 5], [])
    assert "no cell in the images to hold back; all are trained on, and no network is judged" in caplog.text


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_outside_its_range_is_refused(tmp_path, fraction):
    with pytest.raises(ValueError, match="expected 0 <= fraction < 1, got"):
        split(tiny_set(tmp_path, [200]), fraction, 0, grouped=True)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_neither_side_is_empty(tmp_path, fraction):
    data = tiny_set(tmp_path, [200, 100])
    for grouped in (True, False):
        train, validation = split(data, fraction, 0, grouped)
        assert (len(train), len(validation)) == (1, 1)


def test_tiles_of_one_source_stay_together(tmp_path):
    data = tiny_set(tmp_path, [200] * 12, [f"set/slide_{number // 4}/{number}" for number in range(12)])
    assert groups_of(data).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for seed in range(5):
        _, validation = split(data, 0.3, seed, grouped=True)
        assert len(validation) == 4
        assert len({number // 4 for number in validation}) == 1


def test_a_source_that_all_images_share_tells_nothing(tmp_path):
    data = tiny_set(tmp_path, [200] * 4, ["set/x"] * 4)
    assert groups_of(data).tolist() == [0, 1, 2, 3]


def test_without_sources_images_of_like_stain_stay_together(tmp_path):
    stains = [(200, 80, 180), (120, 110, 60), (60, 50, 160), (220, 60, 60), (90, 200, 90)]
    data = tiny_set(tmp_path, [stains[number % 5] for number in range(15)])  # sqrt(30) rounds to 5 clusters
    groups = groups_of(data)
    assert len(set(groups.tolist())) == 5
    assert all(groups[number] == groups[number % 5] for number in range(15))
    _, validation = split(data, 0.2, 0, grouped=True)
    assert len({number % 5 for number in validation}) == 1


def test_gray_images_are_held_back_like_their_originals(tmp_path):
    root = tmp_path / "set"
    tiny_set(root, [(200, 80, 180), (80, 149, 140), (127, 127, 128)] * 5)  # all of luminance 127
    in_color, gray = (open_dataset(root, DatasetConfig(color=color)) for color in ("rgb", "gray"))
    assert groups_of(gray).tolist() == groups_of(in_color).tolist()


def test_few_images_or_one_stain_fall_back_to_images(tmp_path):
    assert groups_of(tiny_set(tmp_path / "few", [90, 220] * 4)).tolist() == list(range(8))
    assert groups_of(tiny_set(tmp_path / "same", [150] * 12)).tolist() == list(range(12))


def test_clusters_do_not_follow_the_strength_of_one_outlier():
    weak, strong, outlier = [0.3, 0.5, 0.2], [0.6, 1.0, 0.4], [4.0, 4.0, 4.0]
    clusters = stain_clusters([np.array(each) for each in [weak] * 5 + [strong] * 5 + [outlier]])
    assert len({clusters[0], clusters[5], clusters[10]}) == 3
    assert len(set(clusters[:5].tolist())) == 1


def test_a_rare_class_in_two_groups_comes_on_both_sides():
    counts = np.tile([50, 0], (20, 1))
    counts[3, 1] = counts[11, 1] = 1
    for seed in range(5):
        held = choose(np.arange(20), counts, 0.2, seed)
        assert held[3] != held[11]
        assert 3 <= held.sum() <= 5


def test_a_class_in_one_group_alone_is_better_trained_than_held_back():
    counts = np.tile([50, 0], (10, 1))
    counts[7, 1] = 4
    assert not any(choose(np.arange(10), counts, 0.2, seed)[7] for seed in range(5))


def test_the_cells_count_beside_the_images():
    counts = np.array([[90], [10]] * 5)  # a fifth of images and cells is one of each kind
    for seed in range(5):
        assert counts[choose(np.arange(10), counts, 0.2, seed)].sum() == 100


def test_classes_without_a_cell_are_no_burden():
    held = choose(np.arange(10), np.zeros((10, 4), int), 0.2, 0)
    assert held.sum() == 2


@pytest.mark.parametrize("name", ["consep", "dsb2018"])
def test_real_sets_split_near_the_fraction_and_in_whole_groups(name):
    root = SHARED / name
    if not root.exists():
        pytest.skip(f"{root} is not here")
    data = open_dataset(root, DatasetConfig())
    for grouped in (True, False):
        train, validation = split(data, 0.2, 0, grouped)
        assert 0.1 <= len(validation) / len(data) <= 0.35
        if grouped:
            groups = groups_of(data)
            assert not set(groups[train]) & set(groups[validation])
        if name == "consep":
            assert data.cell_counts[validation].any(axis=0).all()


def test_each_image_is_held_back_in_one_fold_and_the_seed_decides(tmp_path):
    data = tiny_set(tmp_path, [200] * 20)
    found = folds(data, 5, 0, grouped=False)
    assert np.bincount(found).tolist() == [4] * 5
    for fold in range(5):  # two of each class
        assert sorted((np.flatnonzero(found == fold) % 2).tolist()) == [0, 0, 1, 1]
    assert np.array_equal(found, folds(data, 5, 0, grouped=False))
    assert not np.array_equal(found, folds(data, 5, 1, grouped=False))


def test_folds_keep_the_tiles_of_a_source_together(tmp_path):
    data = tiny_set(tmp_path, [200] * 12, [f"set/slide_{number // 2}/{number}" for number in range(12)])
    for seed in range(3):
        found = folds(data, 3, seed, grouped=True).reshape(6, 2)
        assert (found[:, 0] == found[:, 1]).all()
        assert np.bincount(found[:, 0]).tolist() == [2, 2, 2]


def test_a_fold_is_held_back_where_the_config_has_folds_and_a_share_where_not(tmp_path):
    data = tiny_set(tmp_path, [200] * 9)
    sides = [held_back(data, DatasetConfig(folds=3, fold=fold, grouped_split=False)) for fold in range(3)]
    assert sorted(index for _, validation in sides for index in validation) == list(range(9))
    for train, validation in sides:
        assert sorted(train + validation) == list(range(9))
        assert len(validation) == 3
    config = DatasetConfig(validation_fraction=0.4, split_seed=3, grouped_split=False)
    assert held_back(data, config) == split(data, 0.4, 3, grouped=False)


def test_more_folds_than_groups_are_refused(tmp_path):
    data = tiny_set(tmp_path, [200] * 12, [f"set/slide_{number // 4}/{number}" for number in range(12)])
    with pytest.raises(ValueError, match=r"as many groups .* as the 4 folds, found 3; ask for fewer"):
        folds(data, 4, 0, grouped=True)
    assert len(set(folds(data, 12, 0, grouped=False).tolist())) == 12


def test_no_fold_is_empty_though_one_group_has_nearly_all():
    groups = np.array([0] * 97 + [1, 2, 3])
    for seed in range(5):
        found = dealt(groups, np.ones((100, 1)), 4, seed)
        assert sorted(np.bincount(found).tolist()) == [1, 1, 1, 97]


def test_a_rare_class_is_dealt_to_as_many_folds_as_it_has_groups_for():
    counts = np.tile([50, 0], (20, 1))
    counts[[2, 5, 9], 1] = 1
    for seed in range(5):
        found = dealt(np.arange(20), counts, 4, seed)
        assert len(set(found[[2, 5, 9]].tolist())) == 3
        assert np.bincount(found).tolist() == [5] * 4


def test_folds_balance_the_cells_beside_the_images():
    counts = np.array([[90], [10]] * 6)
    for seed in range(3):
        found = dealt(np.arange(12), counts, 3, seed)
        assert np.bincount(found, counts[:, 0]).tolist() == [200.0] * 3
        assert np.bincount(found).tolist() == [4] * 3
