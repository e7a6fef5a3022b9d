from dataclasses import replace

import torch

from cellseg.box_stages import truth_of
from cellseg.model import build_model


def samples_of(micro, proposals, boxes, labels, ignored=(), **options):
    heads = build_model(replace(micro, **options)).roi_heads
    labels = torch.tensor(labels, dtype=torch.int64)
    cells = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels, "ids": labels + 10}
    target = {**cells, "ignored": torch.tensor(ignored).reshape(-1, 4), "generator": None}
    return heads._samples([torch.tensor(proposals)], [target], truth_of([target]))


def test_a_roi_finds_the_cell_that_it_overlaps_most_from_one_half_on(micro):
    cells = [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]]
    near, half, less = [1.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 30.0], [20.0, 20.0, 40.0, 29.0]
    found = samples_of(micro, [near, half, less], cells, [3, 1])
    labels = {tuple(box): label for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)}
    assert labels == {tuple(near): 3, tuple(half): 1, tuple(less): 0, tuple(cells[0]): 3, tuple(cells[1]): 1}
    own = found.aims_at[[found.boxes.tolist().index(cell) for cell in cells]]
    assert own.tolist() == cells  # a cell is its own aim


def test_without_a_cell_all_rois_are_background(micro):
    found = samples_of(micro, [[0.0, 0.0, 10.0, 10.0]] * 3, [], [])
    assert found.labels.tolist() == [0, 0, 0]
    assert (found.aims_at[:, 2:] > found.aims_at[:, :2]).all()  # so that their deltas are finite


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
