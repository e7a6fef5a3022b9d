"""Measurements of known shapes: discs, ellipses, rectangles; of mixed colours; of neighbours that were placed."""

import csv

import numpy as np
import pytest
import tifffile
from made_cells import SIZE, awkward_cells, cells_of_shapes, disc, no_cells, noise

from cellseg import measurements, slides, stain
from cellseg.measurements import measured
from cellseg.slides import Slide, open_image

LARGE = (140, 140)
WHITE = np.full((*SIZE, 3), 255, np.uint8)


def of_one(mask, size=LARGE, image=None, **more):
    """What is measured of one mask, as numbers."""
    cells = cells_of_shapes((20, 20, mask, 1), size=size, **more)
    columns = measured(cells, np.full((*size, 3), 255, np.uint8) if image is None else image)
    return {name: column[0] for name, column in columns.items()}


@pytest.mark.parametrize("radius", [6, 6.5, 7, 8, 9, 10, 10.3, 13, 20, 33.7, 50])
def test_a_disc_has_the_perimeter_and_diameter_of_its_circle(radius):
    found = of_one(disc(radius))
    assert found["perimeter"] == pytest.approx(2 * np.pi * radius, rel=0.03)
    assert found["major_axis"] == pytest.approx(2 * radius, rel=0.02)
    assert found["minor_axis"] == pytest.approx(2 * radius, rel=0.02)
    assert found["circularity"] > 0.94
    assert found["solidity"] == 1


def test_a_bar_at_any_angle_has_its_perimeter_within_a_twentieth():
    ys, xs = np.mgrid[:100, :100]
    for degrees in range(0, 180, 10):
        along = (xs - 50) * np.cos(np.radians(degrees)) + (ys - 50) * np.sin(np.radians(degrees))
        across = (ys - 50) * np.cos(np.radians(degrees)) - (xs - 50) * np.sin(np.radians(degrees))
        mask = (abs(along) < 40) & (abs(across) < 8)
        assert of_one(mask)["perimeter"] == pytest.approx(2 * (80 + 16), rel=0.05)


@pytest.mark.parametrize("turn", [0, 30, 90, 140])
def test_an_ellipse_has_its_axes_and_direction(turn):
    ys, xs = np.mgrid[-40:41, -40:41]
    angle = np.radians(turn)
    along, across = xs * np.cos(angle) - ys * np.sin(angle), ys * np.cos(angle) + xs * np.sin(angle)
    found = of_one((along / 30) ** 2 + (across / 15) ** 2 <= 1)
    assert found["major_axis"] == pytest.approx(60, rel=0.01)
    assert found["minor_axis"] == pytest.approx(30, rel=0.01)
    assert found["orientation"] == pytest.approx(turn, abs=0.5)  # counter-clockwise on the screen: y goes down
    assert found["eccentricity"] == pytest.approx(np.sqrt(3) / 2, abs=0.01)


def test_a_rectangle_is_measured_as_one_and_its_pixels_are_squares():
    found = of_one(np.ones((4, 10)))
    assert found["area"] == 40
    assert (found["centroid_x"], found["centroid_y"]) == (25, 22)
    assert found["major_axis"] == pytest.approx(4 * np.sqrt(100 / 12))
    assert found["minor_axis"] == pytest.approx(4 * np.sqrt(16 / 12))
    assert found["solidity"] == 1


def test_a_pixel_alone_has_all_measurements():
    found = of_one([[1]])
    assert (found["area"], found["circularity"], found["solidity"], found["eccentricity"]) == (1, 1, 1, 0)
    assert (found["centroid_x"], found["centroid_y"]) == (20.5, 20.5)
    assert found["major_axis"] == found["minor_axis"] == pytest.approx(4 / np.sqrt(12))
    steep = np.arctan(1 / 2)  # each of eight directions crosses the border twice
    shares = 2 * steep + 2 * (np.pi / 4 - steep) / np.sqrt(2) + 4 * np.pi / 8 / np.sqrt(5)
    assert found["perimeter"] == pytest.approx(shares)
    assert np.isnan(found["nearest_distance"])


def test_a_bay_counts_against_solidity_and_a_hole_into_the_perimeter():
    bay = np.ones((10, 10))
    bay[3:7, 5:] = 0
    assert of_one(bay)["solidity"] == pytest.approx(0.8)
    ring = np.ones((30, 30))
    ring[10:20, 10:20] = 0
    assert of_one(ring)["perimeter"] == pytest.approx(
        of_one(np.ones((30, 30)))["perimeter"] + of_one(np.ones((10, 10)))["perimeter"], abs=4
    )


def test_stains_are_told_apart_by_their_colours():
    image = np.full((*LARGE, 3), 255, np.uint8)
    haematoxylin, eosin = (np.array(each) / np.linalg.norm(each) for each in (stain.HAEMATOXYLIN, stain.EOSIN))
    image[20:30, 20:30] = np.rint(256 * 10 ** -(0.5 * haematoxylin + 0.2 * eosin) - 1)
    found = of_one(np.ones((10, 10)), image=image)
    assert found["hematoxylin_od"] == pytest.approx(0.5, abs=0.01)
    assert found["eosin_od"] == pytest.approx(0.2, abs=0.01)
    white = of_one(np.ones((10, 10)))
    assert white["hematoxylin_od"] == white["eosin_od"] == 0


def test_the_colour_is_that_of_the_cells_own_pixels(monkeypatch):
    monkeypatch.setattr(measurements, "BLOCK", 16)
    cells, image = awkward_cells(), noise()
    masks = [cells.to_label_map() == number for number in range(1, len(cells) + 1)]
    expected = stain.unmixed(np.stack([stain.density(image, mask) for mask in masks]) / np.log(10))
    columns = measured(cells, image)
    assert np.allclose(np.stack([columns["hematoxylin_od"], columns["eosin_od"]], axis=1), expected)


def test_a_slide_is_read_block_by_block_and_gives_what_its_array_does(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "LARGE", 0)
    monkeypatch.setattr(measurements, "BLOCK", 32)
    image, cells = noise(), awkward_cells()
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", tile=(16, 16))
    slide = open_image(tmp_path / "a.tif")
    assert isinstance(slide, Slide)
    asked = []
    read = Slide.__getitem__
    monkeypatch.setattr(Slide, "__getitem__", lambda self, window: asked.append(window) or read(self, window))
    for one, other in zip(measured(cells, slide).values(), measured(cells, image).values(), strict=True):
        assert np.array_equal(one, other)
    squares = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in asked]
    assert squares == [(0, 47, 0, 32), (30, 36, 40, 47), (50, 60, 70, 80)]  # around the cells that begin in one of 32


def test_neighbours_are_counted_in_microns_where_they_are_known_and_in_diameters_else():
    dots = [(x, 10, [[1]], 1) for x in (0, 3, 20, 70)]
    columns = measured(cells_of_shapes(*dots, mpp=2.5), WHITE)  # 50 microns are 20 pixels
    assert columns["neighbors_50um"].tolist() == [2, 2, 2, 0]
    assert columns["nearest_distance"].tolist() == [3, 3, 17, 50]
    assert columns["nearest_distance_um"].tolist() == [7.5, 7.5, 42.5, 125]
    columns = measured(cells_of_shapes(*dots), WHITE)  # 3 diameters of a pixel are 3.4 pixels
    assert columns["neighbors_3_diameters"].tolist() == [1, 1, 0, 0]
    assert not [name for name in columns if "um" in name.split("_")]


def test_microns_are_pixels_times_their_size():
    columns = measured(awkward_cells(mpp=0.25), WHITE)
    assert np.array_equal(columns["area_um2"], columns["area"] / 16)
    for name in ("centroid_x", "centroid_y", "perimeter", "major_axis", "minor_axis", "nearest_distance"):
        assert np.array_equal(columns[f"{name}_um"], columns[name] / 4, equal_nan=True)


def test_a_csv_has_a_line_a_cell(tmp_path):
    cells = awkward_cells()
    measurements.write(cells, noise(), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = measured(cells, noise())
    assert list(rows[0]) == list(columns)
    assert [row["class"] for row in rows] == cells.names
    assert [int(row["number"]) for row in rows] == list(range(1, 10))
    assert [float(row["perimeter"]) for row in rows] == pytest.approx(columns["perimeter"], abs=1e-5)


def test_what_has_no_value_is_empty_and_no_cell_is_a_header(tmp_path):
    measurements.write(cells_of_shapes((3, 3, [[1]], 1)), WHITE, tmp_path / "a.csv")
    header, line = (tmp_path / "a.csv").read_text().splitlines()
    assert line.split(",")[header.split(",").index("nearest_distance")] == ""
    measurements.write(no_cells(), WHITE, tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == header + "\n"
