"""Label tifs: the number of a cell is the value of its pixels, read by tifffile."""

import numpy as np
import pytest
import tifffile
from made_cells import SIZE, awkward_cells, cells_of_shapes, disc, no_cells

from cellseg import label_tif
from cellseg.cells import Cells
from cellseg.codes import encode
from cellseg.label_tif import TILE


@pytest.fixture(scope="module")
def codes():
    """65,536 cells of one pixel that fill an image of 256 x 256, row by row."""
    ys, xs = np.divmod(np.arange(2**16), 256)
    return tuple(encode([np.ones((1, 1), bool)] * 2**16, np.stack([xs, ys], axis=1), (256, 256)))


def test_each_cell_has_its_number_and_the_tif_the_size_of_a_pixel(tmp_path):
    cells = awkward_cells(mpp=0.25)
    label_tif.write(cells, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        (page,) = tif.pages
        assert np.array_equal(page.asarray(), cells.to_label_map())
        assert (page.dtype, page.compression.name) == (np.uint16, "ADOBE_DEFLATE")
        assert page.is_tiled
        assert page.resolutionunit.name == "CENTIMETER"
        assert page.resolution == (40_000, 40_000)
        assert not tif.is_bigtiff
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_where_the_size_of_a_pixel_is_not_known_none_is_told(tmp_path):
    label_tif.write(awkward_cells(mpp=None), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages[0].resolutionunit.name == "NONE"


def test_cells_across_tiles_are_whole_and_larger_than_a_tile_too(tmp_path):
    size = (2 * TILE + 30, 3 * TILE - 1)
    cells = cells_of_shapes(
        (TILE - 20, TILE - 25, disc(20), 1), (40, 3, np.ones((2 * TILE, 10)), 2), (3 * TILE - 2, 5, [[1]], 1), size=size
    )
    label_tif.write(cells, tmp_path / "a.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), cells.to_label_map())


def test_an_image_without_cells_is_background(tmp_path):
    label_tif.write(no_cells(), tmp_path / "a.tif")
    read = tifffile.imread(tmp_path / "a.tif")
    assert read.shape == SIZE
    assert not read.any()
    assert label_tif.read(tmp_path / "a.tif", SIZE) == []


@pytest.mark.parametrize(("count", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_more_numbers_than_16_bits_hold_take_32(tmp_path, codes, count, dtype):
    cells = Cells((256, 256), codes[:count], np.ones(count, np.int64), np.ones(count, np.float32), ("a",))
    label_tif.write(cells, tmp_path / "a.tif")
    read = tifffile.imread(tmp_path / "a.tif")
    assert read.dtype == dtype
    assert read.ravel()[:count].tolist() == list(range(1, count + 1))


def test_a_tif_of_more_than_four_gigabytes_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(label_tif, "LARGEST_PLAIN", 5000)
    cells = awkward_cells()
    label_tif.write(cells, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        assert np.array_equal(tif.asarray(), cells.to_label_map())


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(label_tif, "windows_of", lambda codes: iter(()))
    with pytest.raises(ValueError):
        label_tif.write(awkward_cells(), tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_read_with_the_classes_of_a_table(tmp_path):
    cells = awkward_cells()
    label_tif.write(cells, tmp_path / "a.tif")
    rows = [f"{number},{name},0.5" for number, name in enumerate(cells.names, start=1)]
    (tmp_path / "a.csv").write_text("\n".join(["number,class,score", *rows]))
    read = label_tif.read(tmp_path / "a.tif", SIZE, tmp_path / "a.csv")
    assert [cell.code for cell in read] == list(cells.codes)
    assert [cell.class_name for cell in read] == cells.names


def test_a_cell_without_a_class_is_named_or_gets_the_one_that_is_given(tmp_path):
    label_tif.write(awkward_cells(), tmp_path / "a.tif")
    (tmp_path / "a.csv").write_text("number,class\n1,mast cell\n2,\n")
    names = [cell.class_name for cell in label_tif.read(tmp_path / "a.tif", SIZE, tmp_path / "a.csv", "other")]
    assert names == ["mast cell", *["other"] * 8]
    with pytest.raises(ValueError, match=r"a\.csv: expected a row with the class of cell 2, found none; add it"):
        label_tif.read(tmp_path / "a.tif", SIZE, tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"a\.tif: expected a csv beside it with the class of cell 1, found none"):
        label_tif.read(tmp_path / "a.tif", SIZE)


@pytest.mark.parametrize("text", ["cell,class\n1,a\n", "number,class\none,a\n"])
def test_a_table_without_numbers_is_refused(tmp_path, text):
    label_tif.write(awkward_cells(), tmp_path / "a.tif")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv: expected columns number and class, a number a cell, found"):
        label_tif.read(tmp_path / "a.tif", SIZE, tmp_path / "a.csv")
