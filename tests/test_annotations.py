import numpy as np
import pytest
import tifffile

from cellseg.annotations import Cell, ClassFiles, CodedCells, read_label_map, with_unique_ids
from cellseg.codes import encode


def written(path, pixels):
    tifffile.imwrite(path, np.asarray(pixels), metadata=None)
    return path


def block(y, x, height, width, label=1, crowd=False):
    """A cell in an image of 8 x 10."""
    (code,) = encode([np.ones((height, width), bool)], np.array([[x, y]]), (8, 10))
    return Cell(code, label, crowd)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64", "uint64", "float32", "float64"])
def test_ids_of_any_type_survive(tmp_path, dtype):
    largest = {"uint8": 255, "uint16": 65_535, "float32": 2**24}.get(dtype, 2**31 - 1)
    label_map = read_label_map(written(tmp_path / "a.tif", np.array([[0, 1], [largest, 2]], dtype)), (2, 2))
    assert label_map.dtype == np.int32
    assert label_map.tolist() == [[0, 1], [largest, 2]]


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        ([[0.0, 1.5]], "1.5 at row 0, column 1"),
        ([[0.0, np.nan]], "nan at row 0, column 1"),
        ([[np.inf, 0.0]], "inf at row 0, column 0"),
        ([[0.0, -1.0]], "-1.0 at row 0, column 1"),
        (np.array([[0, -3]], np.int16), "-3 at row 0, column 1"),
        (np.array([[2**31, 0]], np.uint32), "2147483648 at row 0, column 0"),
        ([[0.0], [1.0]], r"shape \(2, 1\)"),
        (np.zeros((1, 2, 3), np.uint8), r"shape \(1, 2, 3\)"),
        (np.array([[True, False]]), "type bool"),
    ],
)
def test_what_is_no_label_map_of_the_image_is_refused(tmp_path, pixels, found):
    path = written(tmp_path / "class1.tif", pixels)
    with pytest.raises(ValueError, match=rf"class1\.tif: expected ids.*in shape \(1, 2\).*found {found}; "):
        read_label_map(path, (1, 2))


def test_touching_cells_and_parts_of_one_cell_keep_their_ids(tmp_path):
    path = written(tmp_path / "class3.tif", [[7.0, 9.0, 0.0, 7.0]])
    label_maps = ClassFiles({3: path}, 4).label_maps((1, 4))
    assert label_maps.tolist() == [[[0, 0, 0, 0]], [[0, 0, 0, 0]], [[7, 9, 0, 7]], [[0, 0, 0, 0]]]


def test_ids_that_run_across_the_files_stay_and_restarting_ones_are_renumbered():
    running = np.array([[[1, 2, 0]], [[0, 0, 300]]], np.int32)
    assert with_unique_ids(running) is running
    restarting = np.array([[[1, 5, 0]], [[0, 1, 9]]], np.int32)
    assert with_unique_ids(restarting).tolist() == [[[1, 2, 0]], [[0, 3, 4]]]
    assert restarting.tolist() == [[[1, 5, 0]], [[0, 1, 9]]]


def test_the_smaller_cell_wins_and_the_larger_is_counted():
    small, large, other = block(2, 2, 2, 2), block(1, 1, 4, 4), block(1, 1, 4, 4, label=2)
    cells = CodedCells((small, large, other), 2)
    label_maps = cells.label_maps((8, 10))
    first = label_maps[0]
    assert (first > 0).sum() == 16
    assert (first == first[2, 2]).sum() == 4
    assert (label_maps[1] > 0).sum() == 16  # another class has its own plane
    assert cells.overlaps(label_maps) == 1
    assert cells.cells(label_maps) == [small, large, other]


def test_a_crowd_stays_in_the_truth_and_out_of_the_label_maps():
    cells = CodedCells((block(0, 0, 8, 10, crowd=True), block(1, 1, 2, 2)), 1)
    label_maps = cells.label_maps((8, 10))
    assert (label_maps > 0).sum() == 4
    assert cells.overlaps(label_maps) == 0
    assert [cell.crowd for cell in cells.cells(label_maps)] == [True, False]


def test_an_image_without_cells_has_empty_planes():
    for annotation in (ClassFiles({}, 3), CodedCells((), 3)):
        label_maps = annotation.label_maps((8, 10))
        assert label_maps.shape == (3, 8, 10)
        assert not label_maps.any()
        assert annotation.cells(label_maps) == []
        assert annotation.overlaps(label_maps) == 0
