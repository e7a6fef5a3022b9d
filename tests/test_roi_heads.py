from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import fastrcnn_loss

from cellseg.model import build_model
from cellseg.roi_heads import box_losses, mask_loss, mask_targets


def square_map():
    label_maps = torch.zeros(2, 20, 20, dtype=torch.int32)
    label_maps[0, 5:15, 5:15] = 3
    label_maps[0, 5:15, 15:18] = 4  # touches cell 3
    label_maps[1, 0:4, 0:4] = 300
    return label_maps


def targets_of(label, cell, box, side=28):
    return mask_targets(square_map(), torch.tensor([label]), torch.tensor([cell]), torch.tensor([box]), side)[0]


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


def test_a_one_pixel_cell_is_found():
    label_maps = torch.zeros(1, 5, 5, dtype=torch.int32)
    label_maps[0, 2, 2] = 9
    shares = mask_targets(label_maps, torch.tensor([1]), torch.tensor([9]), torch.tensor([[2.0, 2.0, 3.0, 3.0]]), 28)
    assert (shares >= 0.25).all()
    assert (shares.amax() > 0.9).item()


def test_no_roi_gives_no_target_and_a_loss_of_zero():
    empty = mask_targets(square_map(), torch.empty(0).long(), torch.empty(0).int(), torch.empty(0, 4), 28)
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


def test_box_losses_are_torchvision_s():
    torch.manual_seed(0)
    logits, deltas, aims = torch.randn(9, 5), torch.randn(9, 20), torch.randn(9, 4)
    labels = torch.tensor([0, 1, 4, 0, 0, 2, 3, 1, 0])
    for kept in (slice(None), slice(0, 1)):  # the second is background alone
        mine = box_losses(logits[kept], deltas[kept], labels[kept], aims[kept])
        theirs = fastrcnn_loss(logits[kept], deltas[kept], [labels[kept]], [aims[kept]])
        assert torch.allclose(torch.stack(mine), torch.stack(theirs))


def samples_of(micro, proposals, boxes, labels, ignored=(), **options):
    heads = build_model(replace(micro, **options)).roi_heads
    cells = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    ignored = torch.tensor(ignored).reshape(-1, 4)
    return heads._samples(torch.tensor(proposals), {**cells, "ignored": ignored, "generator": None})


def test_a_roi_finds_the_cell_that_it_overlaps_most_from_one_half_on(micro):
    cells = [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]]
    near, half, less = [1.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 30.0], [20.0, 20.0, 40.0, 29.0]
    found = samples_of(micro, [near, half, less], cells, [3, 1])
    labels = {tuple(box): label for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)}
    assert labels == {tuple(near): 3, tuple(half): 1, tuple(less): 0, tuple(cells[0]): 3, tuple(cells[1]): 1}
    own = found.aims[[found.boxes.tolist().index(cell) for cell in cells]]
    assert torch.equal(own, torch.zeros(2, 4))  # a cell is its own aim


def test_without_a_cell_all_rois_are_background(micro):
    found = samples_of(micro, [[0.0, 0.0, 10.0, 10.0]] * 3, [], [])
    assert found.labels.tolist() == [0, 0, 0]
    assert torch.isfinite(found.aims).all()


def test_positives_are_capped_at_their_share_of_the_rois(micro):
    cells = [[10.0 * k, 0.0, 10.0 * k + 9, 9.0] for k in range(20)]
    found = samples_of(micro, [[0.0, 50.0, 9.0, 59.0]] * 30, cells, [1] * 20, roi_batch=16, roi_positive_fraction=0.25)
    assert ((found.labels > 0).sum(), len(found.labels)) == (4, 16)


def test_what_finds_a_sliver_is_neither_a_cell_nor_background(micro):
    cell, sliver = [20.0, 20.0, 40.0, 40.0], [0.0, 0.0, 4.0, 10.0]
    half, less = [0.0, 0.0, 8.0, 10.0], [0.0, 0.0, 9.0, 10.0]  # of the IoU that a positive RoI needs
    found = samples_of(micro, [half, less, sliver, cell], [cell], [2], ignored=[sliver])
    labels = {tuple(box): label for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)}
    assert labels == {tuple(less): 0, tuple(cell): 2}
    nothing = samples_of(micro, [half, less], [], [], ignored=[sliver])
    assert nothing.boxes.tolist() == [less]
    assert nothing.labels.tolist() == [0]
