"""Outlines that somebody drew become codes of the pixels within."""

import numpy as np
import pytest

from cellseg.codes import decode
from cellseg.drawn import Outline, drawn

SQUARE = np.array([(1, 2), (4, 2), (4, 4), (1, 4)], float)


def test_an_outline_is_coded_with_its_class():
    (cell,) = drawn([Outline("a: 1", "mast cell", [SQUARE])], (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[2:4, 1:4] = True
    assert np.array_equal(decode(cell.code), expected)
    assert cell.class_name == "mast cell"


def test_lines_within_each_other_leave_a_hole_and_cells_may_overlap():
    large = np.array([(0, 0), (6, 0), (6, 6), (0, 6)], float)
    ring, whole = drawn([Outline("a: 1", "x", [large, SQUARE]), Outline("a: 2", "x", [large])], (6, 8))
    assert decode(ring.code).sum() == 36 - 6
    assert decode(whole.code).sum() == 36


def test_no_outline_is_no_cell():
    assert drawn([], (6, 8)) == []


@pytest.mark.parametrize(
    ("rings", "found"),
    [
        ([SQUARE + 20], "around pixels of the image, 6 high and 8 wide, found none within; remove it"),
        ([SQUARE[:2]], "found none within"),
        ([], "found none within"),
        ([SQUARE * np.nan], "corners within 10000000 pixels of the image, found some that are not; draw it again"),
    ],
)
def test_an_outline_without_a_pixel_is_named(rings, found):
    with pytest.raises(ValueError, match=rf"^a\.geojson: object 2: expected .*{found}"):
        drawn([Outline("a.geojson: object 1", "x", [SQUARE]), Outline("a.geojson: object 2", "x", rings)], (6, 8))
