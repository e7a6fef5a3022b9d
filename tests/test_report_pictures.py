import cv2
import numpy as np
import pytest
from test_plots import result

from cellseg.colors import COLORS
from cellseg.report_pictures import SIDE, fullest, side_by_side

GRAY = 128


def opened(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def marked(picture, color):
    """How many pixels have that colour, but for what JPEG does to it."""
    return int((np.abs(picture.astype(int) - color).max(axis=2) < 60).sum())


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((90, 60), (540, 360)),
        ((600, 900), (373, 560)),
        ((3000, 20), (560, 11)),
        ((560, 560), (560, 560)),
        ((1, 1), (560, 560)),
    ],
)
def test_a_picture_is_enlarged_by_whole_steps_or_shrunk_to_its_side(size_hw, expected):
    image = np.full((*size_hw, 3), GRAY, np.uint8)
    truth, found, _ = side_by_side(image, np.zeros((2, *size_hw), np.int32), [], 0.5)
    assert opened(truth).shape == opened(found).shape == (*expected, 3)
    assert max(expected) <= SIDE


def test_one_shows_the_truth_and_the_other_what_was_found():
    label_maps = np.zeros((2, 9, 9), np.int32)
    label_maps[0, 1:6, 1:6] = 1
    truth, found, shown = side_by_side(
        np.full((9, 9, 3), GRAY, np.uint8), label_maps, [result(2, 0.9, 0, 0, 5, 5), result(1, 0.4, 6, 6, 3, 3)], 0.5
    )
    assert shown == (slice(0, 9), slice(0, 9))
    yellow, blue = COLORS[:2]
    assert marked(opened(truth), yellow) > 100
    assert marked(opened(found), blue) > 100
    assert marked(opened(truth), blue) == marked(opened(found), yellow) == 0


def test_outlines_are_still_seen_where_an_image_is_shrunk():
    label_maps = np.zeros((1, 1000, 1000), np.int32)
    label_maps[0, 400:600, 400:600] = 1
    truth, _, _ = side_by_side(np.full((1000, 1000, 3), GRAY, np.uint8), label_maps, [], 0.5)
    assert marked(opened(truth), COLORS[0]) > 4 * 112 * 0.9


def test_of_a_large_image_the_window_with_most_cells_is_shown():
    truth, found = np.zeros((2, 1, 50, 30), np.int32)
    truth[0, 41:50, 0:9] = 1
    found[0, 0:9, 21:30] = 1
    assert fullest(truth, found, side=20) == (slice(0, 20), slice(10, 30))
    truth[0, 30:41, 0:9] = 2
    assert fullest(truth, found, side=20) == (slice(30, 50), slice(0, 20))
    assert fullest(truth, found, side=40) == (slice(10, 50), slice(0, 30))
    assert fullest(truth, found) == (slice(0, 50), slice(0, 30))


def test_a_picture_of_a_million_pixels_takes_few_bytes():
    rough = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    image = cv2.GaussianBlur(rough, (0, 0), 3)  # about as rough as tissue
    truth, _, _ = side_by_side(image, np.zeros((1, 1000, 1000), np.int32), [], 0.5)
    assert len(truth) < 90_000
