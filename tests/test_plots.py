from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from cellseg import colors, plots
from cellseg.codes import Array, encode

GRAY = 100
YELLOW, BLUE = colors.COLORS[:2]
CURVE = {"recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.8, 0.0]}


def gray(height: int, width: int) -> Array:
    return np.full((height, width, 3), GRAY, np.uint8)


def marked(picture: Array, color: colors.Color) -> set[tuple[int, int]]:
    ys, xs = np.nonzero((picture == color).all(axis=2))
    return set(zip(ys.tolist(), xs.tolist(), strict=True))


def block(y: int, x: int, height: int, width: int) -> set[tuple[int, int]]:
    return {(y + i, x + j) for i in range(height) for j in range(width)}


def result(label: int, score: float, y: int, x: int, height: int, width: int) -> dict[str, Any]:
    code = encode([np.ones((height, width), bool)], np.array([[x, y]]), (9, 9))[0]
    return {"image_id": 1, "category_id": label, "bbox": [x, y, width, height], "score": score, "segmentation": code}


def test_an_outline_is_the_outermost_pixels_of_its_cell() -> None:
    label_maps = np.zeros((4, 8, 9), np.int32)
    label_maps[0, 2:6, 3:8] = 300
    picture = plots.overlay(gray(8, 9), label_maps)
    assert marked(picture, YELLOW) == block(2, 3, 4, 5) - block(3, 4, 2, 3)
    assert len(marked(picture, (GRAY, GRAY, GRAY))) == 72 - 14


def test_touching_cells_of_one_class_keep_a_border_between_them() -> None:
    label_maps = np.zeros((1, 5, 10), np.int32)
    label_maps[0, :, :5] = 1
    label_maps[0, :, 5:] = 2
    expected = block(0, 0, 5, 10) - block(1, 1, 3, 3) - block(1, 6, 3, 3)
    assert marked(plots.overlay(gray(5, 10), label_maps), YELLOW) == expected


def test_a_cell_of_one_pixel_is_drawn() -> None:
    label_maps = np.zeros((2, 3, 3), np.int32)
    label_maps[1, 2, 0] = 5
    assert marked(plots.overlay(gray(3, 3), label_maps), BLUE) == {(2, 0)}


def test_outlines_of_an_enlarged_picture_are_as_wide_as_asked() -> None:
    label_maps = np.zeros((1, 6, 6), np.int32)
    label_maps[0, 1:5, 1:5] = 1  # 12 x 12 pixels when enlarged
    picture = plots.overlay(gray(6, 6), label_maps, scale=3, width=2)
    assert picture.shape == (18, 18, 3)
    assert marked(picture, YELLOW) == block(3, 3, 12, 12) - block(5, 5, 8, 8)


def test_without_cells_the_picture_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(plots.overlay(image, np.zeros((4, 5, 7), np.int32)), image)
    assert np.array_equal(plots.results_overlay(image, [], 4, 0.5), image)


def test_neither_image_nor_label_maps_are_changed() -> None:
    image, label_maps = gray(4, 4), np.ones((1, 4, 4), np.int32)
    plots.overlay(image, label_maps)
    assert (image == GRAY).all()
    assert (label_maps == 1).all()


def test_colours_start_again_after_the_last() -> None:
    label_maps = np.zeros((3, 2, 2), np.int32)
    label_maps[2, 0, 0] = 1
    assert marked(plots.overlay(gray(2, 2), label_maps, colors=[YELLOW, BLUE]), YELLOW) == {(0, 0)}


@pytest.mark.parametrize("order", [1, -1])
def test_the_highest_score_wins_a_pixel_whatever_its_class_and_place(order: int) -> None:
    results = [result(1, 0.9, 0, 0, 4, 4), result(2, 0.6, 2, 0, 6, 4)][::order]
    label_maps = plots.drawn(results, 2, 0.5, (9, 9))
    assert (label_maps[0] > 0).sum() == 16
    assert (label_maps[1] > 0).sum() == 16  # 24 less the 8 that they share
    picture = plots.results_overlay(gray(9, 9), results, 2, 0.5)
    assert marked(picture, YELLOW) == block(0, 0, 4, 4) - block(1, 1, 2, 2)
    assert marked(picture, BLUE) == block(4, 0, 4, 4) - block(5, 1, 2, 2)


def test_the_earlier_result_wins_a_tie() -> None:
    results = [result(1, 0.7, 0, 0, 2, 2), result(2, 0.7, 0, 0, 2, 2)]
    assert (plots.drawn(results, 2, 0.5, (9, 9)) > 0).sum(axis=(1, 2)).tolist() == [4, 0]


def test_results_under_the_threshold_are_not_drawn() -> None:
    results = [result(1, 0.5, 0, 0, 2, 2), result(1, 0.49, 5, 5, 2, 2)]
    assert marked(plots.results_overlay(gray(9, 9), results, 1, 0.5), YELLOW) == block(0, 0, 2, 2)


def test_a_triptych_shows_image_truth_and_prediction_with_the_colours_of_the_classes() -> None:
    truth, predicted = np.zeros((2, 2, 200, 400), np.int32)
    truth[0, 50:90, 50:90] = 1
    predicted[1, 50:90, 50:90] = 1
    figure = plots.triptych(gray(200, 400), truth, predicted, ["epithelial", "lymphocyte"])
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "prediction"]
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert {picture.shape for picture in pictures} == {(400, 800, 3)}
    assert (pictures[0] == GRAY).all()
    assert {(y // 2, x // 2) for y, x in marked(pictures[1], YELLOW)} <= block(50, 50, 40, 40)
    assert marked(pictures[1], YELLOW) == marked(pictures[2], BLUE)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["epithelial", "lymphocyte"]
    shown = [to_rgb(patch.get_facecolor()) for patch in legend.get_patches()]
    assert np.allclose(shown, np.array([YELLOW, BLUE]) / 255)


def test_precision_is_drawn_over_recall_with_a_line_per_class() -> None:
    axes = plots.precision_recall({"epithelial": CURVE, "macrophage": CURVE}).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")
    assert [line.get_label() for line in axes.lines] == ["epithelial", "macrophage"]
    assert np.asarray(axes.lines[0].get_xydata()).tolist() == [[0.0, 1.0], [0.5, 0.8], [1.0, 0.0]]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["epithelial", "macrophage"]


def test_without_curves_the_axes_are_empty(tmp_path: Path) -> None:
    figure = plots.precision_recall({})
    plots.save(figure, tmp_path / "curves.png")
    assert not figure.axes[0].lines


def test_a_figure_is_saved_as_png_into_a_new_folder_and_nothing_else_is_left(tmp_path: Path) -> None:
    plots.save(Figure(figsize=(3, 2), dpi=100), tmp_path / "new" / "figure.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figure.png"]
    with Image.open(tmp_path / "new" / "figure.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (300, 200))
