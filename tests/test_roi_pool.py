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
    names = [str(k) for k in range(levels)]
    found = []
    for kind in (CellRoiPool, MultiScaleRoIAlign):
        maps = features(levels)
        pooled = kind(names, side, 2)(maps, boxes(60), SIZES)
        torch.manual_seed(1)
        (pooled * torch.randn(pooled.shape)).sum().backward()
        found.append((pooled, *(each.grad for each in maps.values())))
    for mine, theirs in zip(*found, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_an_image_without_a_roi_and_a_batch_without_one():
    some, none = boxes(3)[0], torch.empty(0, 4)
    pool = CellRoiPool(["0", "1"], 7, 2)
    maps = features()
    assert torch.equal(pool(maps, [none, some], SIZES)[:, :1] * 0, torch.zeros(3, 1, 7, 7))
    alone = pool(maps, [none, none], SIZES)
    assert alone.shape == (0, 3, 7, 7)
    alone.sum().backward()
    assert maps["0"].grad.abs().max() == 0


def test_maps_that_no_roi_is_pooled_from_are_left_out():
    maps = features(3)
    assert torch.equal(
        CellRoiPool(["0"], 7, 2)(maps, boxes(5), SIZES), CellRoiPool(["0"], 7, 2)({"0": maps["0"]}, boxes(5), SIZES)
    )
