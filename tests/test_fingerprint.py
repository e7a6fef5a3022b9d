from dataclasses import dataclass, replace

import numpy as np
import pytest

from cellseg.config import AugmentConfig, ModelConfig, PredictConfig, RunConfig, TrainConfig
from cellseg.fingerprint import (
    Fingerprint,
    Plan,
    apply,
    class_shares,
    fingerprint,
    network_boxes,
    plan,
    sampling_weights,
)


@dataclass
class Named:
    """A record, as far as a fingerprint reads it."""

    name: str


@dataclass
class Maps:
    """Label maps that stand for a data set."""

    maps: list
    channel_order: str = "bgr"
    class_names: tuple = ("round", "flat")
    digest: str = "d1gest"
    mpp: float | None = None

    @property
    def records(self):
        return [Named(f"image{number}") for number in range(len(self.maps))]

    def label_maps(self, index):
        return self.maps[index]


def cells(*boxes, size_hw=(60, 80)):
    """Label maps of two classes with rectangles (label, y, x, height, width)."""
    label_maps = np.zeros((2, *size_hw), np.int32)
    for number, (label, y, x, height, width) in enumerate(boxes, start=1):
        label_maps[label - 1, y : y + height, x : x + width] = number
    return label_maps


def two_images():
    return Maps([cells((1, 0, 0, 10, 10), (2, 20, 20, 12, 12), (1, 40, 60, 20, 20)), cells()])


def planned(config, data=None):
    data = data or two_images()
    return plan(data, fingerprint(data, range(len(data.maps))), config)


def test_boxes_labels_and_areas_are_those_of_the_chosen_images():
    data = two_images()
    found = fingerprint(data, [1, 0])
    assert [len(each) for each in found.boxes] == [0, 3]
    assert found.labels[1].tolist() == [1, 1, 2]
    assert found.areas[1].tolist() == [100, 400, 144]
    assert found.boxes[1].tolist() == [[0, 0, 10, 10], [60, 40, 80, 60], [20, 20, 32, 32]]
    assert found.sizes_hw == ((60, 80), (60, 80))


def test_network_boxes_are_scaled_as_each_image_is():
    data = Maps([cells((1, 0, 0, 10, 10)), cells(), cells((2, 0, 0, 10, 20), size_hw=(120, 160))])
    found = fingerprint(data, range(3))
    assert network_boxes(found, PredictConfig(zoom=2.0)).tolist() == [[0, 0, 20, 20], [0, 0, 40, 20]]
    by_short_side = network_boxes(found, PredictConfig(short_side=120))  # images of 60 and 120 pixels
    assert by_short_side.tolist() == [[0, 0, 20, 20], [0, 0, 20, 10]]
    assert network_boxes(fingerprint(data, [1]), PredictConfig()).shape == (0, 4)


def test_the_median_cell_is_brought_to_30_network_pixels():
    found = planned(RunConfig())
    assert found.median_side == 12
    assert found.zoom == 2.5
    assert found.crop == 224  # 80 x 2.5 = 200, rounded up to a multiple of 32
    assert found.most_cells == 3
    assert found.detections == 100
    assert (found.digest, found.class_names, found.channel_order) == ("d1gest", ("round", "flat"), "bgr")


@pytest.mark.parametrize(("side", "zoom"), [(2, 4.0), (300, 0.25)])
def test_the_zoom_has_limits(side, zoom):
    data = Maps([cells((1, 0, 0, side, side), size_hw=(400, 400))])
    assert planned(RunConfig(), data).zoom == zoom


def test_large_images_are_cut_to_512():
    assert planned(RunConfig(), Maps([cells((1, 0, 0, 12, 12), size_hw=(300, 300))])).crop == 512


def test_a_dense_image_asks_for_more_detections():
    boxes = [(1 + k % 2, 4 * (k // 40), 4 * (k % 40), 3, 3) for k in range(400)]
    found = planned(RunConfig(), Maps([cells(*boxes, size_hw=(60, 200))]))
    assert found.most_cells == 400
    assert found.detections == 600


def test_what_the_config_sets_is_kept():
    config = RunConfig(
        augment=AugmentConfig(crop=0),
        model=ModelConfig(anchor_sizes=(4.0, 8.0, 12.0, 24.0, 48.0), aspect_ratios=(0.25, 0.5, 1.0)),
        predict=PredictConfig(zoom=1.0, overlap=96, detections=7),
    )
    found = planned(config)
    assert (found.crop, found.zoom, found.overlap, found.detections) == (0, 1.0, 96, 7)
    shares = ModelConfig(class_shares=(0.9, 0.1))
    assert apply(RunConfig(model=shares), planned(RunConfig())).model.class_shares == (0.9, 0.1)
    assert found.anchor_sizes == (4.0, 8.0, 12.0, 24.0, 48.0)
    assert found.aspect_ratios == (0.25, 0.5, 1.0)


def test_anchors_are_fitted_in_network_pixels_for_each_level():
    config = RunConfig(model=ModelConfig(stages=3, extra_level=False, sizes_per_level=2))
    small = Maps([cells(*((1, 0, 16 * k, 8, 8) for k in range(5)))])
    found = planned(config, small)
    assert len(found.anchor_sizes) == 6
    assert found.zoom == 3.75
    assert min(abs(size - 30) for size in found.anchor_sizes) < 4


def test_an_applied_plan_leaves_nothing_open():
    config = RunConfig(model=ModelConfig(stages=2, extra_level=False, sizes_per_level=1))
    found = planned(config)
    whole = apply(config, found)
    assert (whole.augment.crop, whole.predict.zoom, whole.predict.detections) == (224, 2.5, 100)
    assert whole.predict.overlap == 64  # 20 x 2.5 x 1.25 = 62.5
    assert whole.model.class_shares is None  # nothing asks for them
    assert whole.model.anchor_sizes == found.anchor_sizes
    assert whole.model.aspect_ratios == found.aspect_ratios
    assert whole.model.num_cell_classes == 2
    assert planned(whole) == found  # a plan for an applied config is the same plan
    assert replace(whole, augment=config.augment, model=config.model, predict=config.predict) == config


@pytest.mark.parametrize(
    ("longest", "tile", "overlap"),
    [
        (40, 1024, 64),  # 40 x 1.25 = 50
        (80, 1024, 128),  # 80 x 1.25 = 100
        (300, 1024, 384),  # 300 x 1.25 = 375
        (300, 512, 256),  # half a tile
        (300, 0, 384),
        (40, 96, 48),
    ],
)
def test_the_longest_cell_fits_in_the_overlap_of_tiles(longest, tile, overlap):
    data = Maps([cells((1, 0, 0, 20, longest), size_hw=(400, 400))])
    assert planned(RunConfig(predict=PredictConfig(zoom=1.0, tile=tile)), data).overlap == overlap


def test_the_overlap_is_in_network_pixels():
    data = Maps([cells((1, 0, 0, 20, 80), size_hw=(400, 400))])
    assert planned(RunConfig(predict=PredictConfig(zoom=2.0)), data).overlap == 224  # 160 x 1.25 = 200
    by_short_side = PredictConfig(zoom=1.0, short_side=800)
    assert planned(RunConfig(predict=by_short_side), data).overlap == 224


def test_one_cell_of_thousands_sets_no_overlap():
    """A polygon gone wrong may span an image."""
    many = [(1, 5 * (k // 80), 5 * (k % 80), 4, 4) for k in range(4000)]
    data = Maps([cells(*many, (2, 0, 0, 300, 300), size_hw=(400, 400))])
    assert planned(RunConfig(predict=PredictConfig(zoom=1.0)), data).overlap == 64


def test_class_cells_count_all_images_and_classes():
    assert planned(RunConfig()).class_cells == (2, 1)
    assert planned(RunConfig(), Maps([cells((1, 0, 0, 9, 9)), cells((1, 0, 0, 9, 9))])).class_cells == (2, 0)


def test_a_class_without_a_cell_has_the_share_of_half_a_cell():
    assert class_shares((2, 0, 1)) == pytest.approx((4 / 7, 1 / 7, 2 / 7))
    adjusted = RunConfig(model=ModelConfig(logit_adjustment=0.5))
    config = apply(adjusted, planned(adjusted, Maps([cells((1, 0, 0, 9, 9))])))
    assert config.model.class_shares == pytest.approx((2 / 3, 1 / 3))


def test_a_plan_of_an_earlier_version_leaves_the_shares_open():
    before = Plan("d", ("a", "b"), "rgb", 1.0, 64, (8.0,), (1.0,), 10, 10.0, 8)
    assert apply(RunConfig(model=ModelConfig(logit_adjustment=0.5)), before).model.class_shares is None
    assert apply(RunConfig(), before).predict.overlap == 128


def test_a_plan_tells_how_often_each_image_is_shown():
    found = planned(RunConfig())
    assert found.images == ("image0", "image1")
    assert found.image_weights == (1, 1)
    data = Maps([cells((1, 0, 0, 9, 9)), cells((1, 0, 0, 9, 9)), cells(size_hw=(120, 160)), cells((2, 0, 0, 9, 9))])
    found = planned(RunConfig(), data)
    assert found.image_weights == tuple(sampling_weights(fingerprint(data, range(4)), TrainConfig()))
    # the third is twice as large, the fourth has a class that one of four images has: sqrt(0.5 x 4)
    assert found.image_weights == pytest.approx([w * 4 / (4 + 2**0.5) for w in (1, 1, 2, 2**0.5)])


def test_a_plan_keeps_the_scale_of_the_data():
    data = two_images()
    assert planned(RunConfig(), data).mpp is None
    data.mpp = 0.25
    assert planned(RunConfig(), data).mpp == 0.25


def test_no_cell_at_all_is_refused():
    with pytest.raises(ValueError, match="expected at least one annotated cell, found none"):
        planned(RunConfig(), Maps([cells()]))


def held(*labels, size_hw=(100, 100)):
    """A fingerprint of images with these classes."""
    empty = tuple(np.empty((len(each), 4)) for each in labels)
    return Fingerprint(empty, tuple(np.array(each, int) for each in labels), empty, (size_hw,) * len(labels), ())


def test_an_image_with_a_rare_class_is_shown_as_often_as_its_rarity_says():
    weights = sampling_weights(held([1], [1], [1, 1], [1], [1], [1], [1], [1, 2]), TrainConfig())
    assert weights.mean() == pytest.approx(1)
    assert weights[7] / weights[0] == pytest.approx(2)  # class 2 in 1 of 8 images: sqrt(0.5 x 8)


def test_an_image_without_cells_is_shown_as_often_as_a_common_one():
    weights = sampling_weights(held([1], []), TrainConfig())
    assert weights.tolist() == [1, 1]


def test_larger_images_are_shown_more_often():
    found = replace(held([1], [1]), sizes_hw=((100, 100), (200, 450)))
    weights = sampling_weights(found, TrainConfig())
    assert weights[1] / weights[0] == pytest.approx(3)


def test_without_oversampling_all_weigh_the_same():
    assert sampling_weights(held([1], [1, 2]), TrainConfig(oversample=False)).tolist() == [1, 1]
    assert len(sampling_weights(held(), TrainConfig())) == 0
