import numpy as np
import pytest
import torch

from cellseg.mask_targets import Masked, mask_loss, mask_targets


def square_map():
    label_maps = torch.zeros(2, 20, 20, dtype=torch.int32)
    label_maps[0, 5:15, 5:15] = 3
    label_maps[0, 5:15, 15:18] = 4  # touches cell 3
    label_maps[1, 0:4, 0:4] = 300
    return label_maps


def cells_of(label_maps, images, labels, ids):
    return Masked(label_maps, *(torch.tensor(each, dtype=torch.int64) for each in (images, labels, ids)))


def targets_of(label, cell, box, side=28):
    return mask_targets(cells_of([square_map()], [0], [label], [cell]), torch.tensor([box]), side)[0]


def test_the_cells_own_box_is_full():
    shares = targets_of(1, 3, [5.0, 5.0, 15.0, 15.0])
    assert shares[2:-2, 2:-2].min() == 1
    assert shares[0, 1:-1].min() > 0.5  # the outermost bins lie half a bin inside, between two pixels


def test_a_touching_neighbour_is_not_inside():
    shares = targets_of(1, 3, [10.0, 5.0, 20.0, 15.0])
    assert (shares[1:-1] > 0.5).sum() == 26 * 14  # the left half: 5 of 10 pixels


def test_targets_are_aligned_with_the_map():
    shares = targets_of(1, 3, [0.0, 0.0, 20.0, 20.0], side=20)  # one bin a pixel
    assert torch.equal(shares, (square_map()[0] == 3).float())


def test_classes_with_the_same_box_do_not_mix():
    assert targets_of(2, 3, [5.0, 5.0, 15.0, 15.0]).sum() == 0
    assert targets_of(2, 300, [0.0, 0.0, 4.0, 4.0])[0, 0] == 1  # in the corner of the map, whose border repeats


def test_images_of_several_sizes_do_not_mix():
    other = torch.zeros(3, 12, 30, dtype=torch.int32)
    other[2, :, 20:] = 3
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [10.0, 0.0, 30.0, 12.0], [5.0, 5.0, 15.0, 15.0]])
    found = mask_targets(cells_of([square_map(), other], [0, 1, 0], [1, 3, 1], [3, 3, 3]), boxes, 20)
    alone = [
        mask_targets(cells_of([label_maps], [0], [label], [3]), box[None], 20)[0]
        for label_maps, label, box in zip((square_map(), other, square_map()), (1, 3, 1), boxes, strict=True)
    ]
    assert torch.equal(found, torch.stack(alone))
    assert (found[1][:, :10] == 0).all()
    assert (found[1][:, 10:] == 1).all()


def test_a_one_pixel_cell_is_found():
    label_maps = torch.zeros(1, 5, 5, dtype=torch.int32)
    label_maps[0, 2, 2] = 9
    shares = mask_targets(cells_of([label_maps], [0], [1], [9]), torch.tensor([[2.0, 2.0, 3.0, 3.0]]), 28)
    assert (shares >= 0.25).all()
    assert (shares.amax() > 0.9).item()


def test_no_roi_gives_no_target_and_a_loss_of_zero():
    empty = mask_targets(cells_of([square_map()], [], [], []), torch.empty(0, 4), 28)
    assert empty.shape == (0, 28, 28)
    logits = torch.zeros(0, 5, 28, 28, requires_grad=True)
    loss = mask_loss(logits, torch.empty(0).long(), empty)
    loss.backward()
    assert loss.item() == 0


def test_the_loss_looks_at_the_own_class_alone():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 2] = 50.0
    shares = torch.ones(1, 2, 2)
    assert mask_loss(logits, torch.tensor([2]), shares).item() == pytest.approx(0, abs=1e-6)
    assert mask_loss(logits, torch.tensor([1]), shares).item() == pytest.approx(np.log(2), abs=1e-6)
