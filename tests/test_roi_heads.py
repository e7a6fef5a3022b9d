from dataclasses import replace

import numpy as np
import pytest
import torch

from cellseg.box_stages import truth_of
from cellseg.label_maps import target
from cellseg.model import build_model


def samples_of(micro, proposals, boxes, labels, ignored=(), **options):
    heads = build_model(replace(micro, **options)).roi_heads
    labels = torch.tensor(labels, dtype=torch.int64)
    cells = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels, "ids": labels + 10}
    one = {**cells, "ignored": torch.tensor(ignored).reshape(-1, 4), "generator": None}
    return heads._samples([torch.tensor(proposals)], [one], truth_of([one]))


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


def square(side, corner, scale):
    """One cell of class 2 in a label map of that side, `scale` network pixels each of its own."""
    maps = np.zeros((3, side, side), np.int32)
    maps[1, corner : corner + side // 3, corner : corner + side // 3] = 4
    cells = target(maps)
    return {**cells, "boxes": cells["boxes"] * scale, "map_scale": torch.full((2,), float(scale)), "generator": None}


def test_images_with_maps_of_several_sizes_train_as_each_alone(micro):
    torch.manual_seed(0)
    model = build_model(replace(micro, roi_batch=64, box_stages=3, mask_quality=True)).eval()
    heads = model.roi_heads.train()
    features = {name: each.detach() for name, each in model.backbone(torch.rand(2, 3, 64, 64)).items()}
    targets = [square(64, 30, 1), square(32, 3, 2)]
    noise = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 2.0, -1.0], [10.0, 10.0, 10.0, 10.0], [0.0, 2.0, 1.0, 0.0]])
    proposals = [(targets[0]["boxes"] + noise).clamp(0, 63), (targets[1]["boxes"] + noise[:3]).clamp(0, 63)]
    both = heads._losses(features, proposals, [(64, 64)] * 2, targets)
    alone, rois, positive = [], [], []
    for image, (boxes, each) in enumerate(zip(proposals, targets, strict=True)):
        own = {name: values[image : image + 1] for name, values in features.items()}
        alone.append(heads._losses(own, [boxes], [(64, 64)], [each]))
        samples = heads._samples([boxes], [each], truth_of([each]))
        rois.append(len(samples.labels))
        positive.append(int((samples.labels > 0).sum()))
    assert rois == [5, 4]
    assert min(positive) > 1
    for name, loss in both.items():
        counts = positive if "mask" in name else rois
        expected = sum(n * each[name].item() for n, each in zip(counts, alone, strict=True)) / sum(counts)
        assert loss.item() == pytest.approx(expected, rel=1e-4), name


def test_an_image_is_sampled_as_it_is_alone(micro):
    heads = build_model(replace(micro, roi_batch=8)).roi_heads
    rng = torch.Generator().manual_seed(0)
    corners = [torch.rand(count, 2, generator=rng) * 40 for count in (20, 50)]
    proposals = [torch.cat([each, each + 15], dim=1) for each in corners]
    targets = [square(64, 20, 1), square(32, 3, 2)]

    def sampled(images):
        seeded = [{**targets[k], "generator": torch.Generator().manual_seed(k)} for k in images]
        return heads._samples([proposals[k] for k in images], seeded, truth_of(seeded)).boxes_of(len(images))

    assert all(torch.equal(*pair) for pair in zip(sampled([0, 1]), sampled([0]) + sampled([1]), strict=True))
