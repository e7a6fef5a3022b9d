import numpy as np
import pytest

from cellseg.codes import Array
from cellseg.label_maps import ids_of
from cellseg.tissue import Scene, draw_slide, paint


def painted(
    size_hw: tuple[int, int] = (200, 240), counts: tuple[int, ...] = (20, 30, 3, 2), seed: int = 0
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return paint(Scene(size_hw, counts, draw_slide(rng)), rng)


def test_an_image_and_its_label_maps_have_the_wanted_size_and_type() -> None:
    image, label_maps = painted()
    assert image.shape == (200, 240, 3)
    assert image.dtype == np.uint8
    assert label_maps.shape == (4, 200, 240)
    assert label_maps.dtype == np.int32


def test_as_many_cells_as_wanted_are_drawn_where_there_is_room() -> None:
    assert [len(ids_of(label_map)) for label_map in painted()[1]] == [20, 30, 3, 2]


def test_ids_count_on_from_class_to_class_with_gaps() -> None:
    ids = np.concatenate([ids_of(label_map) for label_map in painted((400, 400), (60, 80, 4, 4))[1]])
    assert (np.diff(ids) >= 1).all()
    assert set(np.diff(ids)) == {1, 2}


def test_each_pixel_has_one_owner() -> None:
    assert ((painted()[1] > 0).sum(axis=0) <= 1).all()


@pytest.mark.parametrize("size_hw", [(1, 1), (33, 35), (60, 600)])
def test_any_size_can_be_painted_without_a_cell(size_hw: tuple[int, int]) -> None:
    image, label_maps = painted(size_hw, (0, 0, 0, 0))
    assert image.shape == (*size_hw, 3)
    assert not label_maps.any()


def test_the_border_cuts_cells() -> None:
    _, label_maps = painted((80, 80), (6, 10, 0, 0))
    assert label_maps[:, [0, -1]].any() or label_maps[:, :, [0, -1]].any()


def test_the_same_generator_state_paints_the_same_image() -> None:
    for one, two in zip(painted(seed=5), painted(seed=5), strict=True):
        assert (one == two).all()
    assert (painted(seed=5)[0] != painted(seed=6)[0]).any()


def test_lymphocytes_are_darker_than_the_stroma_and_blue_purple() -> None:
    image, label_maps = painted()
    red, green, blue = image[label_maps[1] > 0].mean(axis=0)
    assert red < blue
    assert green < blue
    assert image[label_maps[1] > 0].mean() < image[~label_maps.any(axis=0)].mean() - 50


def test_the_stroma_is_pink_and_holds_dark_things_that_are_no_cells() -> None:
    image, label_maps = painted((300, 300), (0, 0, 0, 0))
    red, green, blue = image.reshape(-1, 3).mean(axis=0)
    assert red > green + 30
    assert blue > green
    assert (image.mean(axis=2) < 110).sum() > 100
    assert not label_maps.any()


def test_slides_differ_in_their_stain() -> None:
    rng = np.random.default_rng(0)
    first, second = draw_slide(rng), draw_slide(rng)
    assert np.abs(first.stains - second.stains).max() > 0.02
    for slide in (first, second):
        assert slide.stains[0, 0] > 2 * slide.stains[0, 2] * 0.95  # haematoxylin: red .65, blue .29
