import platform

import numpy as np
import pytest
import torch

from cellseg.config import PredictConfig
from cellseg.images import recolored
from cellseg.onnx_pixels import seen_pixels, seen_size
from cellseg.resampling import network_size, resized


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seen(image, color="rgb", **point):
    config = PredictConfig(**point)
    return seen_pixels(torch.from_numpy(image), config, color).numpy()


@pytest.mark.parametrize("zoom", [None, 1.0])
def test_at_zoom_1_the_network_sees_the_image(zoom):
    image = noise(7, 9)
    assert np.array_equal(seen(image, zoom=zoom), image)


@pytest.mark.parametrize("zoom", [1.07, 1.5, 1.62, 2.0, 3.1])
@pytest.mark.parametrize("size_hw", [(97, 131), (1, 5), (40, 2)])
def test_a_larger_image_is_made_as_opencv_makes_it(zoom, size_hw):
    """On other processors to a grey level, as OpenCV rounds there in other places."""
    image = noise(*size_hw)
    expected = resized(image, network_size(size_hw, zoom))
    found = seen(image, zoom=zoom)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1
    if platform.machine() == "x86_64":
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("zoom", [0.25, 0.5, 0.61, 0.97])
def test_a_smaller_image_is_the_mean_of_what_it_covers_to_a_grey_level(zoom):
    image = noise(96, 131)
    expected = resized(image, network_size((96, 131), zoom))
    found = seen(image, zoom=zoom)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("size_hw", [(20, 30), (80, 50), (90, 300)])
def test_a_short_side_grows_small_images_and_shrinks_large_ones(size_hw):
    sides = {"short_side": 40, "long_side": 70}
    image = noise(*size_hw)
    expected = resized(image, network_size(size_hw, PredictConfig(**sides).scale_of(size_hw)))
    assert np.abs(seen(image, **sides) - expected).max() <= 1


def test_lengths_between_two_pixels_are_rounded_as_python_does():
    """To the even one: 1.5 x 101 = 151.5 becomes 152, and 1.5 x 103 = 154.5 becomes 154."""
    assert seen_size(torch.tensor([101.0, 103.0], dtype=torch.float64), PredictConfig(zoom=1.5)).tolist() == [152, 154]
    assert seen_size(torch.tensor([1.0, 1.0], dtype=torch.float64), PredictConfig(zoom=0.25)).tolist() == [1, 1]


def test_grey_is_the_luminance_that_opencv_computes():
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3), axis=-1).reshape(-1, 52, 3).astype(np.uint8)
    assert np.array_equal(seen(every, color="gray"), recolored(every, color="gray"))
