import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from cellseg.roi_pool import CellRoiPool

SIZES = [(160, 128), (128, 160)]


def features(levels=2, channels=3):
    torch.manual_seed(0)
    return {str(k): torch.randn(2, channels, 40 // 2**k, 40 // 2**k, requires_grad=True) for k in range(levels)}


def boxes(count, seed=0):
    """Boxes of two images, from under a pixel to the whole image, some over the border."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(2, count, 2, generator=generator) * 170 - 5
    sides = torch.exp(torch.rand(2, count, 2, generator=generator) * 5.5 - 0.5)
    return list(torch.cat([centres - sides / 2, centres + sides / 2], dim=-1))


@pytest.mark.parametrize("side", [7, 14])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_features_and_gradients_are_torchvision_s(side, levels):
    found = []
    for pool in (CellRoiPool(levels, side, 2), MultiScaleRoIAlign([str(k) for k in range(levels)], side, 2)):
        maps = features(levels)
        pooled = pool(maps, boxes(60), SIZES)
        torch.manual_seed(1)
        (pooled * torch.randn(pooled.shape)).sum().backward()
        found.append((pooled, *(each.grad for each in maps.values())))
    for mine, theirs in zip(*found, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_torchvision_s_own_way_which_a_gpu_takes_gives_the_same_after_a_small_image_too(levels):
    """Left to infer the strides from maps of 128 padded pixels and an image of 70, it takes 2 and 4 for 4 and 8."""
    pool = CellRoiPool(levels, 7, 2)
    torch.manual_seed(0)
    maps = {str(k): torch.randn(1, 3, 32 // 2**k, 32 // 2**k) for k in range(levels)}
    for size in ((70, 70), (128, 128)):
        rois = [boxes(40)[0]]
        assert torch.allclose(pool(maps, rois, [size]), MultiScaleRoIAlign.forward(pool, maps, rois, [size]), atol=1e-4)


def test_an_image_without_a_roi_and_a_batch_without_one():
    some, none = boxes(3)[0], torch.empty(0, 4)
    pool = CellRoiPool(2, 7, 2)
    maps = features()
    assert torch.equal(pool(maps, [none, some], SIZES)[:, :1] * 0, torch.zeros(3, 1, 7, 7))
    alone = pool(maps, [none, none], SIZES)
    assert alone.shape == (0, 3, 7, 7)
    alone.sum().backward()
    assert maps["0"].grad.abs().max() == 0


def test_maps_that_no_roi_is_pooled_from_are_left_out():
    maps, pool = features(3), CellRoiPool(1, 7, 2)
    assert torch.equal(pool(maps, boxes(5), SIZES), pool({"0": maps["0"]}, boxes(5), SIZES))
