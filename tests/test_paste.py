import numpy as np
import pytest
import torch

from cellseg import paste as module
from cellseg.codes import decode, encode
from cellseg.label_maps import boxes_of
from cellseg.mask_targets import Masked, mask_targets
from cellseg.paste import paste


def ellipse(diameter, rng, side=64, cell=7):
    long, angle = diameter / 2 * rng.uniform(0.85, 1.15), rng.uniform(0, np.pi)
    short = (diameter / 2) ** 2 / long
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2 - rng.uniform(-0.5, 0.5, (2, 1, 1))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.where((u / long) ** 2 + (v / short) ** 2 <= 1, cell, 0).astype(np.int32)


@pytest.mark.parametrize("zoom", [1, 1.56, 3.1])
def test_an_ideal_head_keeps_the_shape_of_small_nuclei(zoom):
    """Mean IoU with .5 px box noise, original pixels; torchvision's own path gives .78/.85/.90/.92."""
    rng = np.random.default_rng(0)
    for diameter, least in ((8, 0.94), (12, 0.96), (16, 0.97), (24, 0.98)):
        ious = []
        for _ in range(100):
            label_map = ellipse(diameter, rng)
            box = (boxes_of(label_map)[0] + rng.normal(0, 0.5, 4)) * zoom  # network pixels, as a head sees it
            on_map = torch.tensor(box / zoom, dtype=torch.float32)[None]
            cell = Masked([torch.tensor(label_map)[None]], torch.tensor([0]), torch.tensor([1]), torch.tensor([7]))
            probabilities = mask_targets(cell, on_map, 28)
            drawn = decode(paste(probabilities, torch.tensor(box[None] / zoom), label_map.shape)[0])
            ious.append((drawn & (label_map > 0)).sum() / (drawn | (label_map > 0)).sum())
        assert np.mean(ious) >= least, (diameter, np.mean(ious))


def test_a_full_mask_fills_the_pixels_whose_centres_lie_in_the_box():
    drawn = decode(paste(torch.ones(1, 28, 28), torch.tensor([[1.6, 0.4, 4.4, 2.6]]), (4, 6))[0])
    assert np.argwhere(drawn).tolist() == [[y, x] for y in (0, 1, 2) for x in (2, 3)]


def test_half_a_mask_fills_half_a_box():
    mask = torch.zeros(1, 28, 28)
    mask[:, :, 14:] = 1
    drawn = decode(paste(mask, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (8, 8))[0])
    assert drawn.sum(axis=0).tolist() == [0, 0, 0, 0, 8, 8, 8, 8]


@pytest.mark.parametrize(
    "box", [[-5.0, -5.0, 3.0, 3.0], [5.0, 5.0, 50.0, 50.0], [7.9, 7.9, 8.0, 8.0], [2.0, 2.0, 2.0, 9.0]]
)
def test_boxes_over_the_border_and_boxes_without_a_pixel_give_valid_codes(box):
    (code,) = paste(torch.ones(1, 28, 28), torch.tensor([box]), (8, 8))
    drawn = decode(code)
    x1, y1, x2, y2 = box
    y, x = np.mgrid[:8, :8] + 0.5
    assert (drawn == ((x >= x1) & (x < x2) & (y >= y1) & (y < y2))).all()


def test_no_detection_gives_no_code():
    assert paste(torch.empty(0, 28, 28), torch.empty(0, 4), (8, 8)) == []


def drawn_alone(mask, box, size_hw):
    """The window of one detection and its corner, bilinear at each pixel's centre."""
    x1, y1, x2, y2 = box.astype(np.float64)
    height, width = size_hw
    xs = np.array([x for x in range(width) if x1 <= x + 0.5 < x2], np.int64)
    ys = np.array([y for y in range(height) if y1 <= y + 0.5 < y2], np.int64)
    bins = np.arange(len(mask)) + 0.5
    across = np.array([np.interp((x + 0.5 - x1) / (x2 - x1) * len(mask), bins, row) for x in xs for row in mask])
    across = across.reshape(len(xs), len(mask))
    values = [np.interp((y + 0.5 - y1) / (y2 - y1) * len(mask), bins, column) for column in across for y in ys]
    window = np.array(values).reshape(len(xs), len(ys)).T
    corner = (xs[0], ys[0]) if window.size else (0, 0)
    return window, corner


@pytest.mark.parametrize("pixels_at_once", [2**20, 5000])
def test_cells_of_all_sizes_are_drawn_together_as_each_alone(monkeypatch, pixels_at_once):
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", pixels_at_once)
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(-20, 130, (150, 2)), np.exp(rng.uniform(np.log(0.3), np.log(40), (150, 2)))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    boxes[0] = [-3, -3, 200, 200]  # one that is much larger than the rest
    masks = rng.random((150, 14, 14), dtype=np.float32)
    alone = [drawn_alone(mask, box, (110, 120)) for mask, box in zip(masks, boxes, strict=True)]
    assert all(abs(window - 0.5).min(initial=1) > 1e-6 for window, _ in alone)
    expected = encode([window > 0.5 for window, _ in alone], np.array([corner for _, corner in alone]), (110, 120))
    assert paste(torch.from_numpy(masks), torch.from_numpy(boxes), (110, 120)) == expected


def test_no_more_pixels_are_drawn_at_once_than_allowed_but_for_a_cell_that_is_larger_itself():
    sides = np.array([3, 900, 40, 1, 0, 41, 2000])
    parts = [part.tolist() for part in module._alike(sides, 28)]
    assert parts == [[6], [1], [5, 2, 0, 3, 4]]
