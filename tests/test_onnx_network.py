from dataclasses import replace

import numpy as np
import pytest
import torch

from cellseg.config import PredictConfig
from cellseg.model import build_model
from cellseg.onnx_network import OneImage
from cellseg.predict import detect
from cellseg.tiles import tiles

POINT = PredictConfig(zoom=1.0, tile=0, proposals=50, score_threshold=0.0, detections=30)
CASCADE = {"box_stages": 3, "extra_level": True, "anchor_sizes": (8.0, 12.0, 16.0)}


def network_of(config):
    torch.manual_seed(0)
    model = build_model(config, pretrained=False).eval()
    if config.mask_quality:
        torch.nn.init.constant_(model.roi_heads.mask_quality.output.bias, 0.5)
    return model


def image_of(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cells_of(model, image, config):
    """By falling score, boxes, labels, scores and masks that `OneImage` finds, and those that `detect` does."""
    with torch.no_grad():
        found = OneImage(model, config)(torch.from_numpy(image))
    (expected,) = detect(model, image, config)
    order = expected.scores.argsort(descending=True)
    return found, tuple(getattr(expected, name)[order] for name in ("boxes", "labels", "scores", "masks"))


@pytest.mark.parametrize("size_hw", [(64, 64), (70, 93), (5, 6)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_size": 56, "mask_quality": True},
        CASCADE,
        {"box_stages": 2, "num_cell_classes": 1},
        {"backbone": "resnet50_v2", "fpn_channels": 32},
        {"backbone": "convnext_tiny", "roi_levels": 1},
        {"norm": "group"},
        {"norm": "frozen"},
    ],
    ids=str,
)
def test_it_finds_what_detect_finds(micro, options, size_hw):
    found, expected = cells_of(network_of(replace(micro, **options)), image_of(*size_hw), POINT)
    assert len(found[0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"zoom": 1.5, "calibration": ((1.2, 0.3, -0.1, 0.2), (0.7, 0, -0.2, 0), (1, 0, 0, 0), (2, 0, 0, 1))},
        {"zoom": 0.61, "rescore": False},
        {"short_side": 100, "long_side": 110},
        {"detections": 7, "box_nms": 0.2, "proposals": 20, "mask_threshold": 0.4},
        {"detections": None},
        {"score_threshold": 0.21},
    ],
    ids=str,
)
def test_it_has_the_operating_point_of_its_config(micro, options):
    config = replace(POINT, **options)
    found, expected = cells_of(network_of(micro), image_of(70, 93), config)
    assert len(found[0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)  # a pixel of a smaller image may differ by a level


def test_without_a_cell_its_tensors_are_empty(micro):
    with torch.no_grad():
        found = OneImage(network_of(micro), replace(POINT, score_threshold=1.0))(torch.from_numpy(image_of(40, 50)))
    assert [tuple(each.shape) for each in found] == [(0, 4), (0,), (0,), (0, 28, 28)]


def test_of_views_zooms_and_tiles_it_knows_nothing(micro):
    model = network_of(micro)
    image = torch.from_numpy(image_of(70, 93))
    many = replace(POINT, views=8, zooms=(1.0, 1.5), tile=64, overlap=16)
    assert len(list(tiles((70, 93), many))) > 1
    with torch.no_grad():
        for one, other in zip(OneImage(model, many)(image), OneImage(model, POINT)(image), strict=True):
            assert torch.equal(one, other)
