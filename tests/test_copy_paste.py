from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import ndimage

from cellseg.config import AugmentConfig
from cellseg.copy_paste import cut, donors_of, pasted, turned

CONFIG = AugmentConfig(copy_paste=1)
UPRIGHT = replace(CONFIG, flips=False, turns=False)
BACKGROUND = 200


@dataclass
class Images:
    """Images and label maps that stand for a data set, and which of them were cut from."""

    images: list
    maps: list
    read: list

    def label_maps(self, index):
        return self.maps[index]

    def part(self, index, rows, columns):
        self.read.append(index)
        return self.images[index][rows, columns].copy(), self.maps[index][:, rows, columns].copy()


def scene(*boxes, size_hw=(60, 80), background=BACKGROUND):
    """An image and label maps of three classes with rectangles (label, y, x, height, width) of grays 21, 22, …"""
    label_maps = np.zeros((3, *size_hw), np.int32)
    image = np.full((*size_hw, 3), background, np.uint8)
    for number, (label, y, x, height, width) in enumerate(boxes, start=1):
        label_maps[label - 1, y : y + height, x : x + width] = number
        image[y : y + height, x : x + width] = 20 + number
    return image, label_maps


def images_of(*scenes):
    return Images([image for image, _ in scenes], [label_maps for _, label_maps in scenes], [])


def l_shaped():
    """One cell of class 2 in the shape of an L, of which no two of the eight turns and flips are alike."""
    image, label_maps = scene((2, 20, 30, 12, 4), (2, 28, 34, 4, 5))
    label_maps[label_maps > 0] = 9
    image[label_maps[1] > 0] = (120, 60, 150)
    return image, label_maps


def paste_into(view, *sources, seed=0, index=0, config=CONFIG):
    """Both of the view after pasting with this seed; of its image 0 and the sources 1, 2, …"""
    found = images_of(view, *sources)
    return pasted(*view, np.random.default_rng(seed), donors_of(found, range(len(found.maps))), index, config)


def first_pasted(view, *sources, config=CONFIG):
    """The first paste that found its place."""
    tries = (paste_into(view, *sources, seed=seed, config=config) for seed in range(50))
    return next((image, maps) for image, maps in tries if not np.array_equal(maps, view[1]))


def orientations(mask):
    return [np.rot90(each, turns) for each in (mask, mask[:, ::-1]) for turns in range(4)]


def tight(mask):
    ys, xs = np.nonzero(mask)
    return mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def test_only_whole_cells_with_room_for_their_rim_are_donors():
    whole = (1, 2, 2, 8, 8)
    cut_by_border = [(1, 20, 0, 8, 8), (2, 0, 30, 8, 8), (2, 20, 72, 8, 8), (2, 52, 30, 8, 8)]
    no_rim = [(1, 40, 1, 8, 8), (2, 1, 50, 8, 8), (3, 30, 71, 8, 8), (3, 51, 50, 8, 8)]
    donors = donors_of(images_of(scene(), scene(*cut_by_border, whole, *no_rim, (3, 50, 70, 8, 8))), [0, 1])
    assert donors.ids.tolist() == [5, 10]
    assert donors.images.tolist() == [1, 1]
    assert donors.labels.tolist() == [1, 3]
    assert donors.boxes.tolist() == [[2, 2, 10, 10], [70, 50, 78, 58]]


def test_cells_too_small_to_be_trained_on_are_no_donors():
    source = images_of(scene((1, 10, 10, 2, 2), (1, 30, 30, 5, 1)))
    assert donors_of(source, [0], minimum_area=5).ids.tolist() == [2]


@pytest.mark.parametrize("number", range(10))
def test_what_is_pasted_is_the_cell_turned_or_mirrored_and_nothing_else_changes(number):
    view = scene((1, 5, 5, 6, 6))
    image, maps = first_pasted(view, l_shaped(), config=replace(CONFIG, copy_paste=1 + number % 3))
    changed = (maps != view[1]).any(axis=0)
    cells, count = ndimage.label(changed)
    assert (maps[[0, 2]] == view[1][[0, 2]]).all()  # the cell is of class 2
    original = tight(l_shaped()[1][1] > 0)
    for cell in range(1, count + 1):
        found = tight(cells == cell)
        assert any(np.array_equal(found, each) for each in orientations(original))
    assert (image[changed] == (120, 60, 150)).all()  # both backgrounds are alike: its own colours
    far = ndimage.distance_transform_edt(~changed) >= 3
    assert (image[far] == view[0][far]).all()


def test_the_rim_fades_into_the_background_over_two_pixels():
    source = scene((1, 20, 20, 9, 9), background=110)
    donor = cut(donors_of(images_of(source), [0]), 0)
    assert donor.alpha[6, :3].tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert donor.alpha[6, -3:].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert donor.alpha[0, 0] == pytest.approx(1 - 8**0.5 / 3)
    image, maps = first_pasted(scene(background=200), source)  # 110 x 1.4 = 154, 46 darker than what it is pasted on
    ys, xs = np.nonzero(maps[0])
    row = image[ys.min() + 4, xs.min() - 3 : xs.min() + 1, 0]
    assert row.tolist() == [200, round(200 - 46 / 3), round(200 - 46 * 2 / 3), round(21 * 1.4)]


@pytest.mark.parametrize(
    ("beside", "below", "gray"), [(200, 200, 100), (200, 220, 110), (200, 100, 70), (100, 250, 140), (0, 200, 140)]
)
def test_the_stain_is_matched_to_the_background_within_limits(beside, below, gray):
    """By below / beside, but at least .7 and at most 1.4."""
    source = scene((1, 20, 20, 9, 9), background=beside)
    source[0][source[1][0] > 0] = 100
    image, maps = first_pasted(scene(background=below), source)
    assert np.unique(image[maps[0] > 0]).tolist() == [gray]


def test_a_cell_with_no_background_around_it_keeps_its_colours():
    source = scene((1, 10, 10, 9, 9))
    source[1][1][source[1][0] == 0] = 7
    image, maps = first_pasted(scene(background=120), source, config=UPRIGHT)
    assert np.unique(image[maps[0] > 0]).tolist() == [21]


def test_a_neighbour_that_touches_the_cell_stays_where_it_is():
    source = scene((1, 20, 20, 9, 9), (2, 20, 29, 9, 2))
    donors = donors_of(images_of(source), [0])
    patch = cut(donors, donors.labels.tolist().index(1))
    assert patch.alpha[2:11, 2:11].min() == 1
    assert patch.alpha[2:11, 11:].max() == 0
    assert patch.alpha[2:11, :2].min() > 0


def test_cells_of_a_crowded_view_lose_no_pixel():
    rng = np.random.default_rng(0)
    many = [(1 + k % 3, 10 * (k // 8), 10 * (k % 8), *rng.integers(3, 7, 2).tolist()) for k in range(48)]
    view = scene(*many)
    found = 0
    for seed in range(60):
        image, maps = paste_into(
            view, scene((3, 20, 20, 5, 5)), scene((1, 9, 9, 3, 4)), seed=seed, config=replace(CONFIG, copy_paste=8)
        )
        old = view[1] > 0
        assert np.array_equal(maps[old], view[1][old])
        assert (image[old.any(axis=0)] == view[0][old.any(axis=0)]).all()
        assert ((maps > 0).sum(axis=0) <= 1).all()
        found += len(np.unique(maps)) - 1 - 48
    assert found > 20


def test_each_pasted_cell_has_an_id_of_its_own_above_all_others():
    view = scene((2, 5, 5, 6, 6))
    view[1][view[1] > 0] = 70_000
    counts = set()
    for seed in range(40):
        _, maps = paste_into(view, l_shaped(), seed=seed, config=replace(CONFIG, copy_paste=3))
        assert maps.dtype == np.int32
        ids = np.unique(maps[maps > 0])
        assert ids.tolist() == list(range(70_000, 70_000 + len(ids)))
        assert all((maps == k).sum() == (l_shaped()[1] > 0).sum() for k in ids[1:])
        counts.add(len(ids) - 1)
    assert counts == {0, 1, 2, 3}


def test_what_is_pasted_has_the_id_of_no_cell_of_the_image_that_the_view_does_not_show():
    whole = scene(*((1, 20, 10 * k, 6, 6) for k in range(8)))
    donors = donors_of(images_of(whole, l_shaped()), [0, 1])
    window = slice(0, 60), slice(0, 30)
    for seed in range(20):
        _, maps = pasted(
            whole[0][window],
            whole[1][:, *window],
            np.random.default_rng(seed),
            donors,
            0,
            replace(CONFIG, copy_paste=2),
        )
        assert set(np.unique(maps)) - {0, 1, 2, 3} <= {10, 11}  # 9 is the last of both images


def test_rare_classes_come_first_and_cells_of_a_class_come_alike():
    common = [(1, 4 + 9 * (k // 6), 4 + 9 * (k % 6), 5, 5) for k in range(36)]
    rare = [(2, 10, 10, 5, 5), (2, 30, 10, 5, 5), (2, 10, 30, 5, 5), (2, 30, 30, 5, 5)]
    donors = donors_of(images_of(scene(*common), scene(*rare)), [0, 1])
    shares = donors.weights / donors.weights.sum()
    assert shares[donors.labels == 2] == pytest.approx(3 / 4 / 4)  # 1 / sqrt(4) to 1 / sqrt(36)
    assert shares[donors.labels == 1] == pytest.approx(1 / 4 / 36)
    rng, seen = np.random.default_rng(0), []
    for _ in range(400):
        _, maps = pasted(*scene(), rng, donors, 2, CONFIG)
        seen += np.unique(np.nonzero(maps)[0]).tolist()
    assert 170 < len(seen) < 230  # a view gets none or one
    assert np.mean(np.array(seen) == 1) == pytest.approx(3 / 4, abs=0.1)


def test_an_image_is_not_its_own_donor_and_no_image_but_the_given_ones_is():
    source = images_of(*(scene((1 + k, 20, 20, 6, 6)) for k in range(3)))
    donors = donors_of(source, [0, 1])
    for seed in range(40):
        pasted(*scene(), np.random.default_rng(seed), donors, 0, replace(CONFIG, copy_paste=4))
    assert set(source.read) == {1}


@pytest.mark.parametrize("view", [scene(size_hw=(9, 9)), scene((1, 0, 0, 60, 80)), scene(size_hw=(1, 1))])
def test_without_room_nothing_is_pasted(view):
    for seed in range(10):
        image, maps = paste_into(view, l_shaped(), seed=seed, config=replace(CONFIG, copy_paste=3))
        assert np.array_equal(image, view[0])
        assert np.array_equal(maps, view[1])


def test_without_donors_nothing_is_pasted():
    view = scene((1, 20, 20, 6, 6))
    for sources in ((), (scene(),)):
        _, maps = paste_into(view, *sources, config=replace(CONFIG, copy_paste=9))
        assert np.array_equal(maps, view[1])
    none = donors_of(images_of(), [])
    assert np.array_equal(pasted(*view, np.random.default_rng(0), none, 0, CONFIG)[1], view[1])


def test_all_eight_ways_to_lay_a_cell_are_seen_unless_the_config_turns_them_off():
    donor = cut(donors_of(images_of(l_shaped()), [0]), 0)
    rng = np.random.default_rng(0)
    for config, ways in (
        (CONFIG, 8),
        (replace(CONFIG, flips=False), 4),
        (replace(CONFIG, turns=False), 2),
        (UPRIGHT, 1),
    ):
        seen = {(turned(donor, config, rng).alpha == 1).tobytes() for _ in range(100)}
        assert len(seen) == ways


def test_view_and_sources_are_not_changed():
    view, source = scene((1, 5, 5, 6, 6)), l_shaped()
    before = [each.copy() for each in (*view, *source)]
    first_pasted(view, source, config=replace(CONFIG, copy_paste=3))
    assert all(np.array_equal(*pair) for pair in zip(before, (*view, *source), strict=True))


def test_the_same_numbers_give_the_same_view():
    one, other = (paste_into(scene(), l_shaped(), seed=3, config=replace(CONFIG, copy_paste=5)) for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
