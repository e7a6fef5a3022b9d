import os
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from cellseg import loader
from cellseg.label_maps import target
from cellseg.loader import EpochBatches, TrainingViews, View, collate, forward_passes, training_loader


def batches(config, weights, epoch=0, images=None):
    sampler = EpochBatches(range(len(weights)) if images is None else images, np.asarray(weights, float), config)
    sampler.epoch = epoch
    return list(sampler)


def with_train(config, **values):
    return replace(config, train=replace(config.train, **values))


def content(loader, epoch):
    """The bytes of all batches of an epoch."""
    loader.batch_sampler.epoch = epoch
    return [
        (batch.names, [each.numpy().tobytes() for each in batch.images], [t["ids"].tolist() for t in batch.targets])
        for batch in loader
    ]


def test_ctrl_c_leaves_the_loading_processes_to_the_training(data, run_config):
    config = with_train(run_config, steps_per_epoch=40, batch=1)
    config = replace(config, dataset=replace(config.dataset, workers=2))
    waiting = iter(training_loader(data, range(4), np.ones(4), config))
    for process in waiting._workers:
        os.kill(process.pid, signal.SIGINT)  # the moment it is born
    loaded = [next(waiting)]
    for process in waiting._workers:
        os.kill(process.pid, signal.SIGINT)  # at work
    loaded += list(waiting)
    assert len(loaded) == 40


def test_workers_change_nothing(data, run_config):
    config = with_train(run_config, steps_per_epoch=4, batch=2)
    alone, beside = (
        training_loader(data, range(4), np.ones(4), replace(config, dataset=replace(config.dataset, workers=workers)))
        for workers in (0, 2)
    )
    for epoch in (0, 1, 0):
        assert content(alone, epoch) == content(beside, epoch)
    first, second = content(alone, 0), content(alone, 1)
    views = [image for _, images, _ in first + second for image in images]
    assert len(set(views)) == 16  # no view is seen twice, neither in two workers nor in two epochs


def pasting(config, **values):
    return replace(config, augment=replace(config.augment, copy_paste=4, rare_windows=0.5, **values))


def test_workers_paste_the_same_cells(data, run_config):
    config = pasting(with_train(run_config, steps_per_epoch=4, batch=2))
    alone, beside = (
        training_loader(data, range(4), np.ones(4), replace(config, dataset=replace(config.dataset, workers=workers)))
        for workers in (0, 2)
    )
    assert content(alone, 0) == content(beside, 0) != content(alone, 1)
    plain = training_loader(data, range(4), np.ones(4), with_train(run_config, steps_per_epoch=4, batch=2))
    assert sum(map(len, (ids for _, _, each in content(alone, 0) for ids in each))) > sum(
        map(len, (ids for _, _, each in content(plain, 0) for ids in each))
    )


def test_cells_of_images_that_are_held_back_are_never_pasted(data, run_config):
    config = pasting(with_train(run_config, steps_per_epoch=60, batch=1))
    loader = training_loader(data, [0, 1, 2], np.ones(3), config)
    assert set(loader.dataset.donors.images) == {0, 1, 2}
    labels = {label for batch in loader for label in batch.targets[0]["labels"].tolist()}
    assert labels == {1, 2}  # classes 3 and 4 are in image 3 alone
    loader = training_loader(data, [0, 1, 2, 3], np.array([1, 1, 1, 0]), config)  # never drawn, but not held back
    labels = {label for batch in loader for label in batch.targets[0]["labels"].tolist()}
    assert labels == {1, 2, 3, 4}


def test_slivers_are_ignored_and_whole_cells_are_not(data, run_config):
    augment = replace(run_config.augment, crop=30, zoom_jitter=1.0, copy_paste=2)
    plain, views = (
        TrainingViews(data, replace(run_config, augment=replace(augment, least_share=share)), range(4))
        for share in (0.0, 0.5)
    )
    ignored = 0
    for draw in range(30):
        before, after = plain[0, draw, draw % 4], views[0, draw, draw % 4]
        assert torch.equal(before.image, after.image)
        assert len(before.target["ignored"]) == 0
        cells = {tuple(box.tolist()) for box in target(before.target["label_maps"].numpy())["boxes"]}
        left, slivers = ({tuple(box.tolist()) for box in after.target[name]} for name in ("boxes", "ignored"))
        assert left | slivers == cells
        assert {box for box in cells if (box[2] - box[0]) * (box[3] - box[1]) < 72} == slivers  # of 12 x 12 pixels
        ignored += len(slivers)
    assert ignored > 10


def test_pasting_changes_no_other_random_number(data, run_config):
    config = replace(run_config, augment=replace(run_config.augment, zoom_jitter=1.0))
    plain = TrainingViews(data, config)
    pasted = TrainingViews(data, replace(config, augment=replace(config.augment, copy_paste=4)), range(4))
    for draw in range(10):
        before, after = plain[0, draw, 0], pasted[0, draw, 0]
        assert before.seed == after.seed
        old = before.target["label_maps"] > 0
        assert torch.equal(after.target["label_maps"][old], before.target["label_maps"][old])
        assert torch.equal(after.image[:, old.any(dim=0)], before.image[:, old.any(dim=0)])


def test_loading_draws_nothing_from_the_training_s_generator(data, run_config):
    """Else a resumed training, which starts its workers anew, samples other anchors than an uninterrupted one."""
    for workers in (0, 1):
        config = replace(run_config, dataset=replace(run_config.dataset, workers=workers))
        before = torch.get_rng_state()
        content(training_loader(data, range(4), np.ones(4), config), 0)
        assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_shows_other_views(data, run_config):
    one, other = (training_loader(data, range(4), np.ones(4), replace(run_config, seed=seed)) for seed in (0, 1))
    assert content(one, 0) != content(other, 0)


def test_an_image_drawn_twice_in_an_epoch_is_seen_in_two_views(data, run_config):
    views = TrainingViews(data, run_config)
    assert not torch.equal(views[0, 0, 2][0], views[0, 1, 2][0])
    assert torch.equal(views[0, 1, 2][0], views[0, 1, 2][0])


def test_a_view_comes_with_the_target_of_its_window(data, run_config):
    config = replace(run_config, augment=replace(run_config.augment, zoom_jitter=1.0))
    image, cells, name, _ = TrainingViews(data, config)[0, 0, 1]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 64, 64)
    assert name == "image1"
    for label, k, box in zip(cells["labels"], cells["ids"], cells["boxes"], strict=True):
        ys, xs = torch.where(cells["label_maps"][label - 1] == k)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert torch.equal(image[0] < 200, cells["label_maps"].amax(dim=0) > 0)  # nuclei are dark


def test_cells_under_the_minimum_area_are_left_out(data, run_config):
    config = replace(run_config, dataset=replace(run_config.dataset, minimum_area=145))  # the cells have 144 pixels
    _, cells, _, _ = TrainingViews(data, config)[0, 0, 0]
    assert len(cells["ids"]) == 0
    assert cells["boxes"].shape == (0, 4)


@pytest.mark.parametrize("images", [1, 5, 49, 98, 103])
def test_every_image_is_shown_in_one_pass(run_config, images):
    config = with_train(run_config, steps_per_epoch=0, batch=4)
    shown = Counter(index for batch in batches(config, np.ones(images)) for _, _, index in batch)
    assert set(shown) == set(range(images))
    assert max(shown.values()) - min(shown.values()) <= max(1, 3 // images + 1)


def test_batches_are_whole_and_name_epoch_and_draw(run_config):
    config = with_train(run_config, steps_per_epoch=3, batch=4)
    found = batches(config, np.ones(5), epoch=7)
    assert [len(batch) for batch in found] == [4, 4, 4]
    assert [key[:2] for batch in found for key in batch] == [(7, draw) for draw in range(12)]


def test_the_order_depends_on_seed_and_epoch_alone(run_config):
    config = with_train(run_config, steps_per_epoch=3, batch=4)
    weights = np.ones(9)
    orders = [
        [index for batch in batches(replace(config, seed=seed), weights, epoch) for _, _, index in batch]
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3] != orders[0]


def test_images_are_shown_in_proportion_to_their_weights(run_config):
    config = with_train(run_config, steps_per_epoch=10, batch=4)
    shown = Counter(index for batch in batches(config, [1, 1, 2, 4]) for _, _, index in batch)
    assert shown == {0: 5, 1: 5, 2: 10, 3: 20}


def test_rare_draws_are_fair_over_the_epochs(run_config):
    config = with_train(run_config, steps_per_epoch=1, batch=4)
    shown = Counter(
        index for epoch in range(400) for batch in batches(config, np.ones(16), epoch) for _, _, index in batch
    )
    assert min(shown.values()) > 60  # 100 expected, with a standard deviation of 9
    assert len(shown) == 16


def test_only_the_given_images_are_drawn(run_config):
    config = with_train(run_config, steps_per_epoch=0, batch=3)
    assert {index for batch in batches(config, np.ones(3), images=[2, 5, 11]) for _, _, index in batch} == {2, 5, 11}


@pytest.mark.parametrize(
    ("images", "batch", "accumulation", "steps", "passes"),
    [(10, 4, 1, 0, 3), (10, 4, 2, 0, 4), (8, 4, 2, 0, 2), (10, 4, 3, 5, 15), (1, 4, 1, 0, 1)],
)
def test_an_epoch_is_one_pass_or_so_many_steps_times_the_accumulation(
    run_config, images, batch, accumulation, steps, passes
):
    config = with_train(run_config, batch=batch, accumulation=accumulation, steps_per_epoch=steps)
    assert forward_passes(images, config) == passes
    assert len(batches(config, np.ones(images))) == passes


def test_views_of_different_sizes_stay_unpadded():
    maps = np.zeros((2, 8, 8), np.int32)
    maps[1, 2:4, 3:6] = 9
    cells = [target(maps), target(maps[:1])]
    images = [torch.full((3, side, 9), side, dtype=torch.uint8) for side in (5, 7)]
    views = zip(images, cells, ("a", "b"), (5, 7), strict=True)
    batch = collate([View(*each) for each in views])
    assert all(torch.equal(mine, whole) for mine, whole in zip(batch.images, images, strict=True))
    assert (batch.names, batch.seeds) == (["a", "b"], [5, 7])
    for mine, whole in zip(batch.targets, cells, strict=True):
        assert all(torch.equal(mine[name], whole[name]) for name in whole)


def test_processes_share_out_the_draws_of_each_step(run_config, monkeypatch):
    whole = batches(with_train(run_config, batch=6), np.ones(12))
    shares = []
    for rank in range(3):
        monkeypatch.setattr(loader, "world", lambda rank=rank: (rank, 3))
        shares.append(batches(with_train(run_config, batch=2), np.ones(12)))
    assert [[key for part in parts for key in part] for parts in zip(*shares, strict=True)] == whole


def test_what_is_sampled_from_a_view_has_a_seed_of_its_own(data, run_config):
    views = TrainingViews(data, run_config)
    seeds = [views[epoch, draw, index].seed for epoch in (0, 1) for draw in (0, 1) for index in (0, 1)]
    assert len(set(seeds)) == 8
    assert views[0, 0, 0].seed == seeds[0]
