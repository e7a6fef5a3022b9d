import numpy as np

from cellseg.fingerprint import joined, measured
from cellseg.showcase import parts_of


def image(name, size_hw, *cells, side=8):
    """Measures of an image with square cells (label, y, x) by their top left pixels."""
    label_maps = np.zeros((3, *size_hw), np.int32)
    for number, (label, y, x) in enumerate(cells, start=1):
        label_maps[label - 1, y : y + side, x : x + side] = number
    return measured(name, label_maps)


def row(label, y, x, count):
    return [(label, y, x + 10 * k) for k in range(count)]


def test_each_class_is_shown_where_it_is_richest_the_rarest_first():
    found = joined(
        [
            image("a", (200, 300), *row(1, 0, 0, 6), *row(2, 190, 200, 1)),
            image("b", (200, 300), *row(2, 180, 200, 3)),
            image("c", (200, 300), *row(1, 100, 0, 4)),
        ]
    )
    first, second, third = parts_of(found, 3)
    assert (first.label, first.index) == (2, 1)
    assert (second.label, second.index) == (1, 0)
    assert (third.label, third.index) == (0, 2)  # any cells, of the image that is left
    ys, xs = range(*first.rows.indices(200)), range(*first.columns.indices(300))
    assert {180, 187} <= set(ys)
    assert {200, 227} <= set(xs)  # all three cells


def test_a_part_is_twelve_median_cells_wide_where_its_image_is():
    found = joined([image("a", (300, 90), *row(1, 150, 0, 3))])
    (part,) = parts_of(found, 1)
    assert (part.rows.stop - part.rows.start, part.columns) == (96, slice(0, 90))


def test_a_small_cell_gets_64_pixels_and_a_large_one_640():
    small = joined([image("a", (900, 900), (1, 0, 0), side=2)])
    large = joined([image("a", (900, 900), (1, 0, 0), side=100)])
    assert parts_of(small, 1)[0].rows == slice(0, 64)
    assert parts_of(large, 1)[0].rows == slice(0, 640)


def test_parts_of_one_image_share_no_pixel():
    found = joined([image("a", (400, 400), *[cell for y in range(0, 390, 20) for cell in row(1, y, 0, 39)])])
    parts = parts_of(found, 4)
    assert len(parts) == 4
    covered = np.zeros((400, 400), int)
    for part in parts:
        covered[part.rows, part.columns] += 1
    assert covered.max() == 1


def test_where_no_window_with_cells_is_left_there_are_fewer_parts():
    assert len(parts_of(joined([image("a", (50, 50), (1, 3, 3), (2, 20, 20))]), 4)) == 1
    assert len(parts_of(joined([image("a", (50, 50), (1, 3, 3)), image("b", (50, 50))]), 4)) == 1
