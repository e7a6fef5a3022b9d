import dataclasses

import numpy as np
import pytest

from cellseg.config import DatasetConfig
from cellseg.crops import crops_of, with_crops
from cellseg.dataset import open_dataset
from cellseg.experiment import prepare, reduced


def with_subset(config, subset, crop=32, zoom_jitter=1.0):
    augment = dataclasses.replace(config.augment, crop=crop, zoom_jitter=zoom_jitter)
    return dataclasses.replace(config, augment=augment, dataset=dataclasses.replace(config.dataset, subset=subset))


def area(crop):
    return (crop.rows.stop - crop.rows.start) * (crop.columns.stop - crop.columns.start)


def test_all_crops_together_are_the_images(data, run_config):
    crops = crops_of(data, [0, 2], with_subset(run_config, 0.999), 0.999)
    assert {crop.index for crop in crops} == {0, 2}
    seen = np.zeros((72, 80), int)
    for crop in crops:
        if crop.index == 0:
            seen[crop.rows, crop.columns] += 1
    assert seen.max() == 1  # no overlap
    assert all(crop.rows.stop - crop.rows.start >= 32 for crop in crops)  # room for every view


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_share_of_the_pixels_and_of_each_classs_cells_is_chosen(data, run_config, share):
    crops = crops_of(data, range(4), with_subset(run_config, share), share)
    assert sum(map(area, crops)) / (4 * 72 * 80) == pytest.approx(share, abs=0.15)
    cropped = with_crops(data, crops)
    counts = cropped.cell_counts[4:].sum(axis=0)
    assert (counts[:2] > 0).all()
    total = (
        with_crops(data, crops_of(data, range(4), with_subset(run_config, 0.999), 0.999)).cell_counts[4:].sum(axis=0)
    )
    np.testing.assert_allclose(counts[:2] / total[:2], share, atol=0.15)


def test_the_same_split_seed_gives_the_same_crops_whatever_the_training_seed(data, run_config):
    config = with_subset(run_config, 0.5)
    first = crops_of(data, range(4), config, 0.5)
    assert crops_of(data, range(4), dataclasses.replace(config, seed=9), 0.5) == first
    others = [
        crops_of(data, range(4), dataclasses.replace(config, dataset=DatasetConfig(split_seed=seed)), 0.5)
        for seed in range(1, 6)
    ]
    assert any(other != first for other in others)


def test_where_views_are_whole_images_so_are_the_crops(data, run_config):
    crops = crops_of(data, range(4), with_subset(run_config, 0.5, crop=0), 0.5)
    assert {area(crop) for crop in crops} == {72 * 80}
    assert len(crops) == 2


def test_a_crop_has_room_for_the_widest_view(data, run_config):
    crops = crops_of(data, range(4), with_subset(run_config, 0.999, crop=32, zoom_jitter=1.25), 0.999)
    assert min(crop.rows.stop - crop.rows.start for crop in crops) >= 40


def test_a_crop_is_an_image_of_its_own_with_the_cells_that_it_shows(data, run_config):
    crops = crops_of(data, [1], with_subset(run_config, 0.5), 0.5)
    cropped = with_crops(data, crops)
    assert len(cropped) == 4 + len(crops)
    assert cropped.digest == data.digest
    assert len({record.image_id for record in cropped.records}) == len(cropped)
    for index, crop in enumerate(crops, start=4):
        np.testing.assert_array_equal(cropped.image(index), data.image(1)[crop.rows, crop.columns])
        np.testing.assert_array_equal(cropped.label_maps(index), data.label_maps(1)[:, crop.rows, crop.columns])
        assert cropped.records[index].size_hw == cropped.image(index).shape[:2]
    truth = cropped.truth(range(4, len(cropped)))
    assert len(truth["annotations"]) == cropped.cell_counts[4:].sum()
    for annotation in truth["annotations"]:
        record = next(each for each in cropped.records if each.image_id == annotation["image_id"])
        assert tuple(annotation["segmentation"]["size"]) == record.size_hw
    cropped.label_maps(4)[:] = 0
    assert cropped.label_maps(4).any()  # what a method returns may be written to


def test_a_prepared_subset_follows_from_the_config_alone(folder, run_config):
    config = with_subset(run_config, 0.5)
    first, again = prepare(config, folder), prepare(config, folder)
    assert [first.data.records[k].name for k in first.train] == [again.data.records[k].name for k in again.train]
    whole = prepare(with_subset(run_config, 1.0), folder)
    assert first.plan == whole.plan  # of all training images
    names = {whole.data.records[k].name for k in whole.validation}
    assert {first.data.records[k].name.split(" ")[0] for k in first.validation} <= names
    reduced_later = reduced(whole, 0.5)
    assert reduced_later.config == first.config
    assert list(reduced_later.train) == list(first.train)


def test_crops_of_images_that_are_not_kept_in_memory_are_read_again_and_others_take_no_more_of_it(data, run_config):
    crops = crops_of(data, range(4), with_subset(run_config, 0.5), 0.5)
    from_memory, from_files = with_crops(data, crops), with_crops(dataclasses.replace(data, kept={}), crops)
    assert from_files.kept == {}
    for index in range(4, len(from_memory)):
        np.testing.assert_array_equal(from_files.image(index), from_memory.image(index))
        np.testing.assert_array_equal(from_files.label_maps(index), from_memory.label_maps(index))
        assert np.shares_memory(from_memory.kept[index][0], data.kept[crops[index - 4].index][0])
    assert from_files.truth([5]) == from_memory.truth([5])


@pytest.mark.parametrize("subset", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(folder, run_config, subset):
    with pytest.raises(ValueError, match=r"dataset\.subset: expected a share above 0 and up to 1"):
        prepare(with_subset(run_config, subset), folder)


def test_one_image_without_room_for_two_crops_is_kept(folder, run_config):
    data = open_dataset(folder, run_config.dataset)
    assert len(crops_of(data, [0], with_subset(run_config, 0.1, crop=80), 0.1)) == 1
