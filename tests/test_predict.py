from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from cellseg.codes import decode
from cellseg.config import PredictConfig
from cellseg.model import build_model
from cellseg.predict import detect, detect_tiles, mask_certainty, predict, to_results
from cellseg.roi_branches import centred_in
from cellseg.seams import Detections
from cellseg.tiles import tiles

WHOLE = PredictConfig(zoom=1.0, tile=0, detections=1000, rescore=False)
TILED = replace(WHOLE, tile=64, overlap=32)


class SquareFinder(nn.Module):
    """Finds the lit squares of an image by their red; their blue is the class, their red / 255 the score.

    As the network, it keeps what lies in the core and no more than its cap.
    """

    def __init__(self, certainty=1.0):
        super().__init__()
        self.certainty = certainty
        self.place = nn.Parameter(torch.zeros(1))
        self.transform = SimpleNamespace(divisor=1)
        self.rpn = SimpleNamespace(_pre_nms_top_n={}, _post_nms_top_n={})
        self.roi_heads = SimpleNamespace(score_thresh=0.0, nms_thresh=0.0, detections_per_img=0)
        self.shapes = []

    def forward(self, images, cores):
        found = [self.squares(image) for image in images]
        kept = [centred_in(each["boxes"], core) for each, core in zip(found, cores, strict=True)]
        cap = self.roi_heads.detections_per_img
        return [
            {name: values[:cap][owned[:cap]] for name, values in each.items()}
            for each, owned in zip(found, kept, strict=True)
        ]

    def squares(self, image):
        self.shapes.append(tuple(image.shape[1:]))
        red, _, blue = image.numpy()
        found = ndimage.find_objects(ndimage.label(red > 127)[0])
        boxes = [[x.start, y.start, x.stop, y.stop] for y, x in found]
        scores = [float(red[y, x].max()) / 255 for y, x in found]
        order = np.argsort(scores)[::-1].copy()
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)[order],
            "labels": torch.tensor([int(blue[y, x].max()) for y, x in found], dtype=torch.int64)[order],
            "scores": torch.tensor(scores, dtype=torch.float32)[order],
            "masks": torch.full((len(found), 28, 28), self.certainty),
        }


def scene(*squares, size_hw=(100, 120)):
    """An image of squares (y, x, side, class, red)."""
    image = np.zeros((*size_hw, 3), np.uint8)
    for y, x, side, label, red in squares:
        image[y : y + side, x : x + side] = (red, 0, label)
    return image


def grid(size_hw=(170, 200)):
    """An image full of squares of 12 pixels, 4 apart, each with its own red."""
    places = [(y, x) for y in range(1, size_hw[0] - 12, 16) for x in range(2, size_hw[1] - 12, 16)]
    assert len(places) < 128
    return scene(*((y, x, 12, 1 + n % 4, 128 + n) for n, (y, x) in enumerate(places)), size_hw=size_hw), len(places)


def found_in(image, config=WHOLE, image_id=1):
    return predict(SquareFinder(), [(image_id, image)], config)


def detections(*boxes, scores=None, masks=None, labels=None):
    count = len(boxes)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels if labels else [1] * count, dtype=torch.int64),
        torch.tensor(scores if scores else [0.9] * count),
        torch.ones(count, 28, 28) if masks is None else masks,
    )


def test_a_result_has_the_fields_of_coco():
    (result,) = found_in(scene((10, 20, 12, 3, 204)), image_id=17)
    assert result.keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    assert (result["image_id"], result["category_id"], result["bbox"]) == (17, 3, [20, 10, 12, 12])
    assert result["score"] == pytest.approx(0.8)
    assert result["segmentation"]["size"] == [100, 120]
    assert isinstance(result["segmentation"]["counts"], str)
    expected = np.zeros((100, 120), bool)
    expected[10:22, 20:32] = True
    assert np.array_equal(decode(result["segmentation"]), expected)


def test_results_are_sorted_by_image_and_then_by_falling_score():
    image = scene((10, 20, 12, 3, 150), (40, 20, 12, 1, 250), (70, 20, 12, 2, 200))
    results = predict(SquareFinder(), [(9, image), (2, image)], WHOLE)
    assert [(r["image_id"], r["category_id"]) for r in results] == [(2, 1), (2, 2), (2, 3), (9, 1), (9, 2), (9, 3)]


def test_no_image_and_no_cell_give_no_result():
    assert predict(SquareFinder(), [], WHOLE) == []
    for config in (WHOLE, TILED):
        assert found_in(scene(), config) == []


@pytest.mark.parametrize("config", [WHOLE, replace(WHOLE, tile=64, overlap=48)])
def test_at_zoom_2_the_same_pixels_are_found(config):
    image = scene((10, 20, 12, 3, 204), (30, 60, 14, 1, 250), (88, 108, 12, 2, 230))
    at_zoom_1, at_zoom_2 = found_in(image), found_in(image, replace(config, zoom=2.0))
    assert at_zoom_2 == at_zoom_1
    assert len(at_zoom_1) == 3


def test_the_network_sees_the_zoomed_image():
    model = SquareFinder()
    for values in ({"zoom": 0.5}, {"zoom": None}, {"short_side": 50}):
        list(detect(model, scene(), replace(WHOLE, **values)))
    assert model.shapes == [(50, 60), (100, 120), (50, 60)]


def test_in_tiles_the_same_cells_are_found_none_twice_and_none_missing():
    image, count = grid()
    whole = found_in(image)
    model = SquareFinder()
    tiled = predict(model, [(1, image)], TILED)
    assert len(whole) == count
    assert tiled == whole
    assert set(model.shapes) == {(64, 64)}
    assert len(model.shapes) == 5 * 6


def test_a_cell_is_found_wherever_it_lies_among_the_tiles():
    for x in range(0, 109, 3):
        image = scene((x * 88 // 109, x, 11, 1, 200))
        assert found_in(image, TILED) == found_in(image)


def test_a_cell_on_a_seam_that_each_tile_sees_on_the_other_s_side_is_found_once():
    class Unsure(SquareFinder):
        def squares(self, image):
            found = super().squares(image)
            shift = 1.9 if len(self.shapes) == 1 else -1.9
            return {**found, "boxes": found["boxes"] + torch.tensor([shift, 0, shift, 0])}

    image = scene((20, 42, 12, 1, 200), size_hw=(64, 96))  # centred on x = 48, the seam of 0..64 and 32..96
    assert len(predict(Unsure(), [(1, image)], TILED)) == 1


@pytest.mark.parametrize("overlap", [64, 80])
def test_tiles_that_overlap_by_all_of_their_side_are_refused(overlap):
    with pytest.raises(ValueError, match=rf"predict\.overlap: expected less than predict\.tile, 64, got {overlap}"):
        replace(TILED, overlap=overlap)


def test_the_best_detections_of_a_tile_are_kept_up_to_the_cap():
    image, count = grid()
    kept = found_in(image, replace(WHOLE, detections=10))
    assert [round(r["score"] * 255) for r in kept] == list(range(127 + count, 117 + count, -1))


def test_a_large_image_is_not_cut_to_the_cap_of_one_tile():
    image, count = grid()
    assert len(found_in(image, replace(TILED, detections=20))) == count > 20


def test_more_than_100_detections_survive():
    assert len(found_in(grid()[0], replace(WHOLE, detections=1000))) == grid()[1] > 100


def test_the_operating_point_is_that_of_the_config():
    model = SquareFinder()
    list(detect(model.train(), scene(), PredictConfig(proposals=7, score_threshold=0.2, box_nms=0.3, detections=5)))
    assert (model.rpn._pre_nms_top_n["testing"], model.rpn._post_nms_top_n["testing"]) == (7, 7)
    heads = model.roi_heads
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.2, 0.3, 5)
    assert not model.training


def test_scores_are_multiplied_by_the_certainty_of_the_mask():
    image = scene((10, 20, 12, 3, 255))
    for rescore, score in ((True, 0.75), (False, 1.0)):
        (result,) = predict(SquareFinder(0.75), [(1, image)], replace(WHOLE, rescore=rescore))
        assert result["score"] == pytest.approx(score)


def test_rescored_detections_are_sorted_anew():
    class Uneven(SquareFinder):
        def squares(self, image):
            masks = torch.stack([torch.full((28, 28), 0.6), torch.full((28, 28), 1.0)])
            return {**super().squares(image), "masks": masks}

    image = scene((10, 20, 12, 1, 255), (50, 20, 12, 2, 200))
    results = predict(Uneven(), [(1, image)], replace(WHOLE, rescore=True))
    assert [r["category_id"] for r in results] == [2, 1]  # 200 / 255 > 0.6


def test_the_certainty_is_the_mean_inside_the_mask():
    masks = torch.zeros(3, 4, 4)
    masks[0, :2] = 0.8
    masks[0, 2:] = 0.4  # outside
    masks[1] = 0.5  # not over the threshold
    assert mask_certainty(masks, 0.5).tolist() == pytest.approx([0.8, 0, 0])


def test_masks_without_a_pixel_are_dropped():
    masks = torch.ones(3, 28, 28)
    masks[1] = 0.4
    found = detections((0, 0, 5, 5), (6, 6, 9, 9), (3.6, 3.6, 4.4, 4.4), masks=masks)  # the third misses all centres
    assert [r["bbox"] for r in to_results(found, 1, (20, 20), WHOLE)] == [[0, 0, 5, 5]]


def test_a_real_network_gives_the_same_results_twice(micro):
    torch.manual_seed(0)
    model = build_model(micro)
    config = PredictConfig(zoom=1.5, tile=64, overlap=32, proposals=20, score_threshold=0.0, detections=15)
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    first, second = (predict(model, [(4, image)], config) for _ in range(2))
    assert first == second
    assert 15 < len(first) <= 9 * 15  # so many of each tile
    scores = [result["score"] for result in first]
    assert scores == sorted(scores, reverse=True)
    for result in first:
        x, y, width, height = result["bbox"]
        assert 0 <= x <= x + width <= 70.01
        assert 0 <= y <= y + height <= 60.01


@pytest.fixture(scope="module")
def untrained(micro):
    """The micro network, which finds cells in noise, and a config with tiles of it."""
    torch.manual_seed(0)
    config = PredictConfig(zoom=1.0, tile=64, overlap=32, proposals=20, score_threshold=0.0, detections=15)
    return build_model(micro), config, np.random.default_rng(0).integers(0, 256, (64, 130, 3), dtype=np.uint8)


def test_tiles_in_one_forward_pass_give_what_each_gives_alone(untrained):
    model, config, image = untrained
    list(detect(model, image, config))  # sets the operating point
    batch = list(tiles(image.shape[:2], config))[:3]
    windows = [tile.read(image) for tile in batch]
    together = detect_tiles(model, windows, batch, config)
    alone = [detect_tiles(model, [window], [tile], config)[0] for window, tile in zip(windows, batch, strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.allclose(one.boxes, other.boxes, atol=1e-4)
        assert torch.allclose(one.scores, other.scores, atol=1e-5)
        assert torch.allclose(one.masks, other.masks, atol=1e-4)


def test_masks_are_made_for_what_a_tile_keeps_alone(untrained, monkeypatch):
    model, config, image = untrained
    counts = []
    branch = model.roi_heads._mask_branch

    def counted(features, boxes, shapes):
        counts.append(sum(map(len, boxes)))
        return branch(features, boxes, shapes)

    monkeypatch.setattr(model.roi_heads, "_mask_branch", counted)
    list(detect(model, image, config))
    first = next(tiles(image.shape[:2], config))
    model([torch.from_numpy(first.read(image)).permute(2, 0, 1)])
    *owned, everything = counts
    assert len(owned) == 4
    assert owned[0] < everything == 15


class Watched:
    """An image that keeps the sizes of the windows that are read, as a file would."""

    def __init__(self, pixels):
        self.pixels, self.shape, self.sizes = pixels, pixels.shape, []

    def __getitem__(self, window):
        self.sizes.append(self.pixels[window].shape[:2])
        return self.pixels[window]


def test_of_an_image_no_window_larger_than_a_tile_is_read_and_each_once():
    image, count = grid()
    watched = Watched(image)
    assert len(found_in(watched, TILED)) == count
    assert watched.sizes == [(64, 64)] * 30


def test_no_more_than_one_batch_of_tiles_is_read_ahead():
    watched = Watched(np.zeros((640, 64, 3), np.uint8))
    rows = detect(SquareFinder(), watched, TILED)
    next(rows)
    assert len(watched.sizes) <= 3
    rows.close()


def test_a_failure_to_read_is_the_caller_s_to_see():
    class Broken(Watched):
        def __getitem__(self, window):
            raise ValueError("slide.tif: a damaged part")

    with pytest.raises(ValueError, match="a damaged part"):
        found_in(Broken(scene()), TILED)


@pytest.mark.parametrize("size_hw", [(64, 64), (64, 150), (150, 40), (5, 3)])
def test_images_of_one_row_one_column_or_less_than_a_tile_are_as_the_whole(size_hw):
    image = scene((1, 1, 2, 1, 200), size_hw=size_hw)
    image[-2:, -2:] = (250, 0, 3)
    assert found_in(image, TILED) == found_in(image)


def test_scores_are_calibrated_by_class_and_original_size_after_they_are_rescored():
    """Squares of 16 and 8 pixels at zoom 2, score 204 / 255 x .75 = .6; class 1 is doubled in logits, 2 loses log 8."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[4:20, 4:20] = (204, 0, 1)
    image[40:48, 40:48] = (204, 0, 2)
    config = replace(WHOLE, zoom=2.0, rescore=True, calibration=((2.0, 0.0, 0.0, 0.0), (1.0, -1.0, 0.0, 0.0)))
    (found,) = detect(SquareFinder(certainty=0.75), image, config)
    odds = {int(label): float(s / (1 - s)) for label, s in zip(found.labels, found.scores, strict=True)}
    assert odds[1] == pytest.approx(1.5**2, rel=1e-4)
    assert odds[2] == pytest.approx(1.5 / 8, rel=0.1)  # the resized square is a little wider
