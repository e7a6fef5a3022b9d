"""The loop of the accuracy benchmark's opponents."""

from dataclasses import replace

import numpy as np
import opponent_training
import pytest
import torch
from opponent_training import Task, Views, batches, begin, cells_of, fit, restore, save, train_steps, turned, window
from opponents import OPPONENTS

from cellseg.label_maps import boxes_of

SLIM = replace(
    OPPONENTS["torchvision-slim"],
    crop=64,
    batch=1,
    roi_batch=8,
    proposals=20,
    proposals_asked=20,
)
WHOLE = replace(OPPONENTS["reference"], network="slim", short_side=64, batch=3, roi_batch=8, proposals=20)


@pytest.fixture(scope="module")
def task(data):
    return Task(data, [0, 1, 3], 1.0, "cpu")


def silent(text):
    pass


def keys_of(task, opponent, seed, steps):
    return batches(task, opponent, seed, steps).batch_sampler


def test_a_cell_has_a_mask_a_label_and_a_half_open_box():
    maps = np.zeros((2, 8, 9), np.int32)
    maps[1, 2:5, 3:7] = 300  # an id that no byte holds
    maps[0, 0, 0] = 1  # smaller than what is trained on
    cells = cells_of(maps)
    assert cells["boxes"].tolist() == [[3, 2, 7, 5]]
    assert cells["labels"].tolist() == [2]
    assert cells["masks"].shape == (1, 8, 9)
    assert torch.equal(cells["masks"][0].bool(), torch.from_numpy(maps[1] == 300))


def test_without_a_cell_there_are_masks_of_the_view_s_size():
    cells = cells_of(np.zeros((4, 8, 9), np.int32))
    assert cells["masks"].shape == (0, 8, 9)
    assert cells["boxes"].shape == (0, 4)


def test_image_and_label_maps_are_cut_and_turned_alike():
    maps = np.arange(1, 101, dtype=np.int32).reshape(1, 10, 10)
    image = np.repeat(maps[0, :, :, None], 3, axis=2).astype(np.uint8)
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        view, cut = turned(*window(image, maps, 4, rng), rng)
        assert np.array_equal(view[:, :, 0], cut[0])
        assert view.shape == (4, 4, 3)
        seen.add((int(cut[0, 0, 1]) - int(cut[0, 0, 0]), int(cut[0, 1, 0]) - int(cut[0, 0, 0])))
    assert len(seen) == 8  # four turns, mirrored or not


def test_an_image_smaller_than_a_view_lies_on_glass():
    view, maps = window(np.zeros((3, 5, 3), np.uint8), np.ones((1, 3, 5), np.int32), 6, np.random.default_rng(0))
    assert view.shape == (6, 6, 3)
    assert view.sum() == 255 * 3 * (36 - 15)
    assert maps.sum() == 15


def test_a_view_has_the_crop_s_size_after_the_zoom(data):
    image, _ = Views(Task(data, [0], 2.0), SLIM)[0, 0, 0, 0]
    assert image.shape == (3, 32, 32)  # 64 network pixels; torchvision scales by 2


def test_each_pass_of_whole_images_shows_every_image_once(task):
    shown = [[key[-1] for key in keys] for keys in keys_of(task, WHOLE, 0, range(4))]
    assert all(sorted(each) == [0, 1, 3] for each in shown)
    assert len({tuple(each) for each in shown}) > 1


def test_larger_images_are_shown_more_often(task):
    records = list(task.data.records)
    records[3] = replace(records[3], size_hw=(720, 800))  # a hundred times the others
    larger = replace(task, data=replace(task.data, records=tuple(records)))
    shown = [keys[0][-1] for keys in keys_of(larger, SLIM, 0, range(300))]
    assert shown.count(3) / 300 == pytest.approx(100 / 102, abs=0.03)


def test_batches_follow_from_seed_and_step(task):
    whole, late = keys_of(task, SLIM, 5, range(6)), keys_of(task, SLIM, 5, range(4, 6))
    assert whole[4:] == late
    assert keys_of(task, SLIM, 6, range(6)) != whole


def test_the_rate_rises_then_falls_to_nothing(task):
    state = begin(task, SLIM, 0)
    rates = [
        state.optimizer.param_groups[0]["lr"] for _ in train_steps(state, batches(task, SLIM, 0, range(2)), SLIM, 40, 0)
    ]
    assert rates == pytest.approx([SLIM.learning_rate / 2, SLIM.learning_rate])  # a warm-up of 40 / 20 steps


def test_a_training_that_was_stopped_ends_with_the_same_weights(task, tmp_path, monkeypatch):
    whole = fit(task, SLIM, 4, 0, tmp_path / "whole", silent)

    def interrupt(text):
        raise KeyboardInterrupt

    monkeypatch.setattr(opponent_training, "SAVE_EVERY", 0.0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(task, SLIM, 4, 0, tmp_path / "cut", interrupt)
    resumed = fit(task, SLIM, 4, 0, tmp_path / "cut", silent)
    assert resumed.step == whole.step == 4
    assert resumed.seconds > 0
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_finished_training_is_read_and_not_trained_again(task, tmp_path):
    first = fit(task, SLIM, 1, 0, tmp_path, silent)
    before = (tmp_path / "last.pt").read_bytes()
    again = fit(task, SLIM, 1, 0, tmp_path, silent)
    assert (again.step, again.seconds) == (1, first.seconds)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_checkpoint_holds_all_that_changes(task, tmp_path):
    state = begin(task, WHOLE, 0)
    for _ in train_steps(state, batches(task, WHOLE, 0, range(1)), WHOLE, 1, 0):
        state.seconds = 2.5
    save(state, tmp_path / "last.pt")
    other = begin(task, WHOLE, 1)
    restore(other, tmp_path / "last.pt")
    assert (other.step, other.seconds) == (1, 2.5)
    assert str(other.optimizer.state_dict()) == str(state.optimizer.state_dict())


def test_a_loss_that_is_not_finite_ends_the_training(task):
    opponent = replace(SLIM, learning_rate=1e30, clip_norm=0.0)
    with pytest.raises(FloatingPointError, match="lower its learning rate"):
        list(train_steps(begin(task, opponent, 0), batches(task, opponent, 0, range(5)), opponent, 5, 0))


def test_boxes_fit_the_masks(task):
    _, cells = Views(task, SLIM)[0, 0, 0, 0]
    for box, mask in zip(cells["boxes"], cells["masks"], strict=True):
        assert boxes_of(mask.numpy().astype(np.int32)).tolist() == [box.tolist()]
