import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cellseg.augment import network_size, random_view, resized
from cellseg.config import AugmentConfig

GEOMETRY = AugmentConfig(crop=24, zoom_jitter=1.0, color_jitter=0.0, stain_jitter=0.0, blur=0.0, noise=0.0)
COLORS = AugmentConfig(crop=24, zoom_jitter=1.0, flips=False, turns=False, stain_jitter=1.0, blur=1.0, noise=1.0)


def seed(number):
    return np.random.SeedSequence([0, number])


def scene(size_hw=(40, 50)):
    """An image whose first two colours spell the pixel's id, and two label maps with ids over 65,535."""
    rng = np.random.default_rng(7)
    ids = rng.integers(60_000, 70_000, size_hw).astype(np.int32)
    kind = rng.integers(0, 3, size_hw)
    image = np.stack([ids % 256, ids // 256 % 256, kind], axis=2).astype(np.uint8)
    return image, np.stack([np.where(kind == 1, ids, 0), np.where(kind == 2, ids, 0)])


def spelled(image):
    """The ids that an image spells; all of them lie between 60,000 and 70,000."""
    low = image[:, :, 0].astype(np.int32) + 256 * image[:, :, 1].astype(np.int32)
    return np.where(low < 60_000, low + 65_536, low)


@pytest.mark.parametrize("number", range(30))
def test_a_pixel_of_the_map_is_the_same_pixel_of_the_image(number):
    view, window = random_view(*scene(), GEOMETRY, 1.0, seed(number))
    assert view.shape == (24, 24, 3)
    assert window.dtype == np.int32
    for label, plane in enumerate(window, start=1):
        assert np.array_equal(plane, np.where(view[:, :, 2] == label, spelled(view), 0))
    assert window.max() > 65_535


@pytest.mark.parametrize("zoom", [0.6, 1.7, 3.0])
def test_maps_are_cut_but_never_interpolated(zoom):
    image, label_maps = scene((60, 70))
    config = replace(GEOMETRY, zoom_jitter=1.25)
    for number in range(20):
        _, window = random_view(image, label_maps, config, zoom, seed(number))
        turned = [np.rot90(each, k, (1, 2)) for each in (window, window[:, :, ::-1]) for k in range(4)]
        assert any(_contains(label_maps, each) for each in turned)


def _contains(label_maps, window):
    height, width = window.shape[1:]
    windows = np.lib.stride_tricks.sliding_window_view(label_maps, (height, width), axis=(1, 2))
    return bool((windows == window[:, None, None]).all(axis=(0, 3, 4)).any())


def test_the_same_seed_gives_the_same_view_also_when_asked_twice():
    config, same = replace(GEOMETRY, zoom_jitter=1.3, noise=1.0, stain_jitter=1.0), seed(3)
    first, again = (random_view(*scene(), config, 1.3, same) for _ in range(2))
    fresh = random_view(*scene(), config, 1.3, seed(3))
    for other in (again, fresh):
        assert np.array_equal(first[0], other[0])
        assert np.array_equal(first[1], other[1])


def test_other_seeds_give_other_views():
    views = [random_view(*scene(), GEOMETRY, 1.0, seed(number))[1].tobytes() for number in range(20)]
    assert len(set(views)) == 20


def test_mirrored_one_way_both_ways_and_not_at_all_are_all_seen():
    image, label_maps = scene((12, 12))
    config = replace(GEOMETRY, crop=0, turns=False)
    ways = {"none": image, "left-right": image[:, ::-1], "up-down": image[::-1], "both": image[::-1, ::-1]}
    seen = dict.fromkeys(ways, 0)
    for number in range(200):
        view, _ = random_view(image, label_maps, config, 1.0, seed(number))
        for name, expected in ways.items():
            seen[name] += np.array_equal(view, expected)
    assert sum(seen.values()) == 200
    assert min(seen.values()) > 25  # 50 expected, with a standard deviation of 6


def test_all_four_quarter_turns_are_seen():
    image, label_maps = scene((12, 12))
    config = replace(GEOMETRY, crop=0, flips=False)
    views = [random_view(image, label_maps, config, 1.0, seed(number))[0] for number in range(100)]
    seen = [sum(np.array_equal(view, np.rot90(image, turns)) for view in views) for turns in range(4)]
    assert sum(seen) == 100
    assert min(seen) > 5


def test_a_crop_larger_than_the_image_shows_all_of_it():
    image, label_maps = scene((10, 15))
    view, window = random_view(image, label_maps, replace(GEOMETRY, crop=64, turns=False), 2.0, seed(0))
    assert view.shape == (20, 30, 3)
    assert window.shape == (2, 10, 15)
    assert set(np.unique(window)) == set(np.unique(label_maps))


def test_a_crop_of_zero_shows_the_whole_image_at_its_zoom():
    view, window = random_view(*scene(), replace(GEOMETRY, crop=0, turns=False), 0.5, seed(0))
    assert view.shape == (20, 25, 3)
    assert window.shape == (2, 40, 50)


@pytest.mark.parametrize("zoom", [0.37, 1.0, 1.56, 2.9, 4.0])
def test_whole_windows_have_the_size_of_the_crop(zoom):
    config = replace(GEOMETRY, crop=96, zoom_jitter=1.25)
    for number in range(40):
        view, window = random_view(*scene((400, 420)), config, zoom, seed(number))
        assert view.shape == (96, 96, 3)
        assert zoom / 1.26 < 96 / window.shape[1] < zoom * 1.26


def test_a_view_shows_each_pixel_once_and_none_from_beyond_the_image():
    """Neither at a border nor in a window that is larger than the image is anything reflected or filled in."""
    ids = np.arange(1, 26 * 31 + 1, dtype=np.int32).reshape(1, 26, 31)
    image = np.stack([ids[0] % 256, ids[0] // 256, np.zeros_like(ids[0])], axis=2).astype(np.uint8)
    for crop in (24, 29, 64):
        for number in range(20):
            config = replace(GEOMETRY, crop=crop, rare_windows=number / 19)
            view, window = random_view(image, ids, config, 1.0, seed(number))
            assert len(np.unique(window)) == window.size == min(crop, 26) * min(crop, 31)
            assert window.min() > 0
            assert np.array_equal(view[:, :, 0] + 256 * view[:, :, 1].astype(int), window[0])


def one_rare_cell():
    """A cell of class 2 among 60 of class 1 in 120 x 120 pixels, and none of class 3."""
    label_maps = np.zeros((3, 120, 120), np.int32)
    for k in range(60):
        y, x = 12 * (k // 10), 12 * (k % 10)
        label_maps[0, y : y + 4, x : x + 4] = 1 + k
    label_maps[1, 90:94, 70:74] = 99
    return np.zeros((120, 120, 3), np.uint8), label_maps


def test_rare_windows_show_each_class_of_the_image_as_often():
    config = replace(GEOMETRY, crop=16, rare_windows=1.0)
    views = [random_view(*one_rare_cell(), config, 1.0, seed(number))[1] for number in range(300)]
    assert all(view.any() for view in views)
    rare = sum(view[1].any() for view in views)
    assert 115 < rare < 190  # 150 expected, with a standard deviation of 9; 11 where windows lie anywhere
    shown = {k for view in views for k in np.unique(view[0]).tolist()}
    assert len(shown) > 50  # of 60


def test_the_cell_of_a_rare_window_lies_somewhere_in_its_middle_half():
    label_maps = np.zeros((1, 120, 120), np.int32)
    label_maps[0, 60:62, 50:52] = 1
    config = replace(GEOMETRY, crop=40, rare_windows=1.0, flips=False, turns=False)
    places = []
    for number in range(200):
        _, window = random_view(np.zeros((120, 120, 3), np.uint8), label_maps, config, 1.0, seed(number))
        assert window.shape == (1, 40, 40)
        places.append(np.argwhere(window[0])[0] + 1)
    for axis in np.transpose(places):
        assert 9 <= axis.min() <= 12  # 40 / 4 = 10, rounded either way
        assert 28 <= axis.max() <= 31


def test_a_rare_window_around_a_cell_in_a_corner_ends_at_the_corner():
    label_maps = np.zeros((1, 60, 70), np.int32)
    label_maps[0, 57:, 67:] = 1
    config = replace(GEOMETRY, rare_windows=1.0, flips=False, turns=False)
    for number in range(20):
        _, window = random_view(np.zeros((60, 70, 3), np.uint8), label_maps, config, 1.0, seed(number))
        assert np.array_equal(window, label_maps[:, -24:, -24:])


def test_a_view_that_is_not_laid_around_a_cell_is_the_one_that_it_would_be_without():
    config = replace(GEOMETRY, crop=16, zoom_jitter=1.2, noise=1.0)
    same = 0
    for number in range(60):
        plain = random_view(*one_rare_cell(), config, 1.0, seed(number))
        some = random_view(*one_rare_cell(), replace(config, rare_windows=0.5), 1.0, seed(number))
        same += all(np.array_equal(*pair) for pair in zip(plain, some, strict=True))
        empty = [
            random_view(*one_rare_cell()[:1], np.zeros((2, 120, 120), np.int32), each, 1.0, seed(number))[0]
            for each in (config, replace(config, rare_windows=1.0))
        ]
        assert np.array_equal(*empty)
    assert 18 < same < 42


def test_views_are_those_of_earlier_versions():
    """Those that checkpoints were trained on: a training that goes on must see what it would have seen."""
    total = hashlib.sha256()
    for number in range(20):
        for each in random_view(*scene(), replace(GEOMETRY, zoom_jitter=1.3, crop=20), 1.0, seed(number)):
            total.update(str(each.shape).encode())
        for each in random_view(*scene(), GEOMETRY, 1.0, seed(number)):
            total.update(each.tobytes())
    assert total.hexdigest()[:16] == "0f3d5d626fbcc1bc"


def test_a_paste_gets_the_window_and_numbers_of_its_own():
    image, label_maps = scene()
    seen = []

    def paste(pixels, maps, rng):
        seen.append((pixels.copy(), rng.random()))
        return 255 - pixels, maps * 2

    for number in range(5):
        plain = random_view(image, label_maps, GEOMETRY, 1.0, seed(number))
        view, window = random_view(image, label_maps, GEOMETRY, 1.0, seed(number), paste)
        assert np.array_equal(view, 255 - plain[0])
        assert np.array_equal(window, plain[1] * 2)
        assert _contains(spelled(image)[None], spelled(seen[-1][0])[None])  # not yet turned
    assert len({number for _, number in seen}) == 5


def test_the_zoom_jitter_zooms_in_and_out():
    sides = [
        random_view(*scene((90, 90)), replace(GEOMETRY, zoom_jitter=1.5), 1.0, seed(number))[1].shape[1]
        for number in range(60)
    ]
    assert min(sides) < 18  # 24 / 1.5 = 16
    assert max(sides) > 32  # 24 x 1.5 = 36


def test_windows_reach_every_corner():
    image, label_maps = scene((26, 26))
    corners = set()
    for number in range(80):
        _, window = random_view(image, label_maps, replace(GEOMETRY, flips=False, turns=False), 1.0, seed(number))
        corners |= {
            (y, x) for y in (0, 2) for x in (0, 2) if np.array_equal(label_maps[:, y : y + 24, x : x + 24], window)
        }
    assert corners == {(0, 0), (0, 2), (2, 0), (2, 2)}


@pytest.mark.parametrize("name", ["color_jitter", "stain_jitter", "blur", "noise"])
def test_each_recoloring_changes_the_image_and_not_the_maps(name):
    off = replace(COLORS, crop=0, color_jitter=0.0, stain_jitter=0.0, blur=0.0, noise=0.0)
    image, label_maps = scene()
    changed = 0
    for number in range(10):
        view, window = random_view(
            image, label_maps, replace(off, **{name: 1.0 if name != "color_jitter" else 0.3}), 1.0, seed(number)
        )
        assert view.dtype == np.uint8
        assert np.array_equal(window, label_maps)
        changed += not np.array_equal(view, image)
    assert changed >= 5
    assert np.array_equal(random_view(image, label_maps, off, 1.0, seed(0))[0], image)


def test_recoloring_leaves_the_geometry_alone():
    for number in range(10):
        colored = random_view(*scene(), replace(GEOMETRY, color_jitter=0.3, noise=1.0), 1.0, seed(number))
        plain = random_view(*scene(), GEOMETRY, 1.0, seed(number))
        assert np.array_equal(colored[1], plain[1])


def test_the_transforms_of_a_view_do_not_share_their_luck():
    both = replace(COLORS, crop=0, color_jitter=0.0, stain_jitter=0.0, blur=0.5, noise=0.5)
    image, label_maps = scene()
    flat = np.full_like(image, 128)  # a blur leaves it alone, noise does not
    noisy, blurred = [], []
    for number in range(60):
        noisy.append(not np.array_equal(random_view(flat, label_maps, both, 1.0, seed(number))[0], flat))
        blurred.append(random_view(image, label_maps, both, 1.0, seed(number))[0].std() < 0.9 * image.std())
    assert {(a, b) for a, b in zip(noisy, blurred, strict=True)} == {
        (a, b) for a in (False, True) for b in (False, True)
    }


def test_the_stain_of_a_white_or_black_tile_can_be_changed():
    for value in (0, 255):
        tile = np.full((24, 24, 3), value, np.uint8)
        for number in range(20):
            view, _ = random_view(tile, np.zeros((1, 24, 24), np.int32), COLORS, 1.0, seed(number))
            assert view.shape == tile.shape


def test_neither_image_nor_maps_are_changed():
    image, label_maps = scene()
    before = image.copy(), label_maps.copy()
    view, window = random_view(image, label_maps, replace(COLORS, crop=0), 1.0, seed(1))
    assert np.array_equal(image, before[0])
    assert np.array_equal(label_maps, before[1])
    assert view.flags.c_contiguous
    assert window.flags.c_contiguous


def test_sizes_are_rounded_and_never_zero():
    assert network_size((10, 15), 1.5) == (15, 22)
    assert network_size((1, 1), 0.25) == (1, 1)


def test_a_doubled_image_keeps_its_edges_where_they_were():
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:5, 3:6] = 200
    doubled = resized(image, (16, 16))
    assert np.array_equal(doubled[:, :, 0] > 100, np.kron(image[:, :, 0] > 100, np.ones((2, 2), bool)))


def test_albumentations_is_imported_late_and_never_looks_for_updates():
    found = "'albumentations' in sys.modules, os.environ['NO_ALBUMENTATIONS_UPDATE']"
    lines = f"import os, sys, cellseg.augment; print({found})"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]
