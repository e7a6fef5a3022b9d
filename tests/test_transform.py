import numpy as np
import pytest
import torch

from cellseg.label_maps import target
from cellseg.transform import CellTransform


def white(height, width):
    return torch.full((3, height, width), 255, dtype=torch.uint8)


def test_targets_are_brought_to_network_pixels_and_not_changed(micro):
    label_maps = np.zeros((4, 32, 20), np.int32)
    label_maps[0, 4:9, 6:9] = 1
    cells = target(label_maps)
    batch, (on_network,) = CellTransform(micro)([white(64, 50)], [cells])
    assert on_network["boxes"].tolist() == [[15, 8, 22.5, 18]]  # x 2.5, y 2
    assert on_network["map_scale"].tolist() == [2.5, 2]
    assert on_network["generator"] is None
    assert on_network["ignored"].shape == (0, 4)
    assert cells["boxes"].tolist() == [[6, 4, 9, 9]]
    assert batch.image_sizes == [(64, 50)]
    assert batch.tensors.shape == (1, 3, 64, 56)  # the strides are 4 and 8


def test_images_are_normalised_once_and_padded_with_nothing(micro):
    batch, _ = CellTransform(micro)([white(64, 64), white(10, 20)])
    expected = [(1 - mean) / std for mean, std in zip(micro.image_mean, micro.image_std, strict=True)]
    assert batch.tensors[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert batch.tensors[1, :, 9, 19].tolist() == pytest.approx(expected)
    assert not batch.tensors[1, :, 10:].any()
    assert not batch.tensors[1, :, :, 20:].any()


def test_each_image_samples_by_its_own_seed(micro):
    cells = [target(np.zeros((4, 8, 8), np.int32))] * 2
    _, found = CellTransform(micro)([white(8, 8)] * 2, cells, [3, 4])
    assert [each["generator"].initial_seed() for each in found] == [3, 4]
