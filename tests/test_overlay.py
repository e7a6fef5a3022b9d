"""The picture to look at: outlines of the classes' colours, and a legend that counts."""

import numpy as np
import pytest
import tifffile
from made_cells import awkward_cells, cells_of_shapes, no_cells, noise
from PIL import Image

from cellseg import overlay, slides
from cellseg.colors import COLORS
from cellseg.slides import Slide, open_image

GRAY = np.full((60, 80, 3), 100, np.uint8)


def marked(picture, color):
    return {(x, y) for y, x in np.argwhere((picture == color).all(axis=2)).tolist()}


def test_an_outline_is_the_outermost_pixels_in_the_colour_of_the_class():
    cells = cells_of_shapes((10, 20, np.ones((4, 5)), 2), (15, 20, np.ones((4, 3)), 1))
    picture = overlay.outlined(cells, GRAY)
    square = {(x, y) for x in range(10, 15) for y in range(20, 24)}
    assert marked(picture, COLORS[1]) == square - {(x, y) for x in range(11, 14) for y in (21, 22)}
    assert marked(picture, COLORS[0]) == {(x, y) for x in (15, 16, 17) for y in range(20, 24)} - {(16, 21), (16, 22)}
    assert (GRAY == 100).all()


def test_a_pixel_alone_and_cells_at_the_border_are_drawn():
    picture = overlay.outlined(awkward_cells(), GRAY)
    assert (picture[50, 70] == COLORS[0]).all()
    assert (picture[57:, 76:] == COLORS[1]).all(axis=2).sum() == 12 - 2


def test_a_large_image_is_reduced_to_means_and_each_cell_still_shows(monkeypatch):
    monkeypatch.setattr(overlay, "LARGEST", 30)
    monkeypatch.setattr(overlay, "BAND", 7)
    image = noise()
    picture = overlay.outlined(no_cells(), image)
    assert picture.shape == (20, 27, 3)  # by three
    blocks = np.pad(image, ((0, 0), (0, 1), (0, 0)), mode="edge").reshape(20, 3, 27, 3, 3).mean(axis=(1, 3))
    assert np.abs(picture - blocks).max() <= 0.51
    drawn = overlay.outlined(awkward_cells(), np.full_like(image, 100))
    assert (drawn[50 // 3, 70 // 3] == COLORS[0]).all()
    assert (drawn[0, :2] == COLORS[0]).all()


def test_a_slide_gives_the_picture_of_its_array(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "LARGE", 0)
    monkeypatch.setattr(overlay, "LARGEST", 30)
    image = noise()
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", tile=(16, 16))
    slide = open_image(tmp_path / "a.tif")
    assert isinstance(slide, Slide)
    assert np.array_equal(overlay.outlined(awkward_cells(), slide), overlay.outlined(awkward_cells(), image))


def test_the_legend_is_below_the_picture_and_has_the_colours_of_the_classes():
    picture = np.full((300, 400, 3), 100, np.uint8)
    shown = overlay.with_legend(picture, {"epithelial": 12, "mast cell": 0})
    assert np.array_equal(shown[:300], picture)
    legend = shown[300:]
    assert legend.shape == (20, 400, 3)
    for color in COLORS[:2]:
        assert len(marked(legend, color)) > 40
    assert (legend < 128).all(axis=2).sum() > 100  # text


@pytest.mark.parametrize(("width", "lines"), [(1000, 1), (300, 2), (60, 4)])
def test_the_legend_takes_the_lines_that_it_needs(width, lines):
    counts = dict.fromkeys(("epithelial", "lymphocyte", "neutrophil", "macrophage"), 1)
    shown = overlay.with_legend(np.zeros((60, width, 3), np.uint8), counts)
    assert shown.shape[0] == 60 + 20 * lines
    assert shown.shape[1] >= width


def test_a_png_is_written_whole(tmp_path):
    overlay.write(awkward_cells(), noise(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert picture.width >= 80
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
