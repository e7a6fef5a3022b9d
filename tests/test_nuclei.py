import numpy as np
import pytest

from cellseg.codes import Array
from cellseg.nuclei import KINDS, MARGIN, Cell, add_cytoplasm, add_nucleus, noise, oval, place


def placed(counts: tuple[int, int, int, int], side: int = 300, seed: int = 0) -> list[Cell]:
    nests = np.zeros((side + 2 * MARGIN, side + 2 * MARGIN), np.float32)
    return place((side, side), counts, nests, np.random.default_rng(seed))


def owners(cells: list[Cell], side: int = 300) -> Array:
    """How many cells own each pixel of the canvas."""
    count = np.zeros((side + 2 * MARGIN, side + 2 * MARGIN), int)
    for cell in cells:
        count[cell.window] += cell.inside
    return count


def test_an_oval_has_the_area_of_an_ellipse() -> None:
    rng = np.random.default_rng(0)
    assert (oval(rng, 15, 20, 1.0) < 1).sum() == pytest.approx(314, rel=0.03)  # pi 10 x 10
    assert (oval(rng, 15, 20, 2.0) < 1).sum() == pytest.approx(157, rel=0.05)  # pi 10 x 5


def test_an_oval_lies_where_and_as_it_is_told() -> None:
    ys, xs = np.nonzero(oval(np.random.default_rng(0), 15, 20, 4.0, center=(3, -2), angle=0.0) < 1)
    assert (ys.mean() - 15, xs.mean() - 15) == pytest.approx((3, -2))
    assert np.ptp(xs) > 3 * np.ptp(ys)  # angle 0: along x


def test_a_dent_takes_area_away() -> None:
    whole, dented = (oval(np.random.default_rng(1), 25, 40, 1.3, dent=dent) < 1 for dent in (0.0, 0.45))
    assert 0.6 * whole.sum() < dented.sum() < 0.95 * whole.sum()


def test_noise_has_mean_0_and_the_wanted_grain() -> None:
    fine, coarse = (noise(np.random.default_rng(0), (200, 200), scale) for scale in (3, 30))
    assert abs(fine.mean()) < 0.1
    assert 0.4 < fine.std() < 1.2
    assert np.abs(np.diff(fine)).mean() > 5 * np.abs(np.diff(coarse)).mean()


def test_cells_share_no_pixel_and_are_in_one_piece() -> None:
    cells = placed((40, 80, 10, 5))
    assert len(cells) == 135
    assert owners(cells).max() == 1


def test_kinds_differ_in_area() -> None:
    cells = placed((20, 20, 20, 10), side=600)
    neutrophil, lymphocyte, epithelial, macrophage = (
        np.median([cell.inside.sum() for cell in cells if cell.label == label]) for label in (3, 2, 1, 4)
    )
    assert 120 < lymphocyte < 190
    assert 120 < neutrophil < 260
    assert 300 < epithelial < 500
    assert 700 < macrophage < 1300


def test_neutrophils_have_lobes() -> None:
    """Their outline encloses less of its bounding circle than that of lymphocytes."""
    cells = placed((0, 30, 30, 0), side=600)

    def fill(cell: Cell) -> float:
        ys, xs = np.nonzero(cell.inside)
        return float(len(ys) / (np.pi * np.hypot(ys - ys.mean(), xs - xs.mean()).max() ** 2))

    lymphocytes, neutrophils = ([fill(c) for c in cells if c.label == label] for label in (2, 3))
    assert np.median(neutrophils) < 0.65 < np.median(lymphocytes)


def test_many_lymphocytes_touch() -> None:
    cells = placed((0, 60, 0, 0), side=600)
    number = np.zeros(owners(cells, 600).shape, int)
    for index, cell in enumerate(cells, start=1):
        number[cell.window][cell.inside] = index
    left, right = number[:, :-1], number[:, 1:]
    assert len(np.unique(left[(left != right) & (left > 0) & (right > 0)])) >= 10


def test_a_full_image_gets_fewer_cells_than_wanted() -> None:
    cells = placed((0, 60, 0, 0), side=50)
    assert 0 < len(cells) < 60
    assert owners(cells, 50).max() == 1


def test_every_centre_lies_within_the_image() -> None:
    centers = np.array([cell.center for cell in placed((60, 60, 5, 5), side=120)])
    assert centers.min() >= MARGIN
    assert centers.max() < MARGIN + 120


def test_a_nucleus_stains_its_own_pixels_only_and_its_cytoplasm_fades() -> None:
    (cell,) = placed((0, 1, 0, 0), side=60)
    amounts = np.zeros((3, 60 + 2 * MARGIN, 60 + 2 * MARGIN))
    add_nucleus(amounts, cell, np.random.default_rng(0))
    assert (amounts[0] > 0).sum() == cell.inside.sum()
    assert amounts[0].max() < 4
    body = np.zeros_like(amounts)
    add_cytoplasm(body, cell, np.random.default_rng(0))
    y, x = cell.center
    assert body[1, y, x] > 10 * body[1, y, x + 13]  # 1.9 radii from the centre or more


def test_lymphocytes_are_dark_and_macrophages_pale() -> None:
    means = []
    for label in (1, 2, 3, 4):
        counts = tuple(10 * (k == label) for k in (1, 2, 3, 4))
        amounts = np.zeros((3, 300 + 2 * MARGIN, 300 + 2 * MARGIN))
        for cell in placed(counts):  # type: ignore[arg-type]
            assert cell.kind is KINDS[label - 1]
            add_nucleus(amounts, cell, np.random.default_rng(label))
        means.append(amounts[0][amounts[0] > 0].mean())
    epithelial, lymphocyte, neutrophil, macrophage = means
    assert macrophage < epithelial < min(neutrophil, lymphocyte) - 0.5
