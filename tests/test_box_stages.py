from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.roi_heads import fastrcnn_loss

from cellseg.box_stages import LEVELS, Matched, box_losses, class_offsets, matched, refined, truth_of
from cellseg.model import build_model

CELLS = {
    "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]]),
    "labels": torch.tensor([3, 1]),
    "ids": torch.tensor([7, 5]),
    "ignored": torch.empty(0, 4),
}


def found_in(target, rois, positive_iou):
    """What the RoIs of one image find."""
    return Matched(*(each[0] for each in matched(rois[None], truth_of([target]), positive_iou)))


def test_box_losses_are_torchvision_s():
    torch.manual_seed(0)
    logits, deltas, aims = torch.randn(9, 5), torch.randn(9, 20), torch.randn(9, 4)
    labels = torch.tensor([0, 1, 4, 0, 0, 2, 3, 1, 0])
    for kept in (slice(None), slice(0, 1)):  # the second is background alone
        mine = box_losses(logits[kept], deltas[kept], labels[kept], aims[kept])
        theirs = fastrcnn_loss(logits[kept], deltas[kept], [labels[kept]], [aims[kept]])
        assert torch.allclose(torch.stack(mine), torch.stack(theirs))


def test_deltas_for_all_classes_lose_as_those_of_each_class():
    torch.manual_seed(0)
    logits, deltas, aims, labels = torch.randn(3, 5), torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 2, 4])
    alike, each = (box_losses(logits, d, labels, aims)[1] for d in (deltas, deltas.repeat(1, 5)))
    assert torch.equal(alike, each)


def test_no_roi_loses_nothing():
    losses = box_losses(torch.empty(0, 5), torch.empty(0, 20), torch.empty(0).long(), torch.empty(0, 4))
    assert [each.item() for each in losses] == [0, 0]


def test_a_stage_asks_for_its_own_iou():
    rois = torch.tensor([[0.0, 0.0, 10.0, 6.5], [20.0, 20.0, 40.0, 40.0], [60.0, 60.0, 70.0, 70.0]])  # IoU .65, 1, 0
    assert [found_in(CELLS, rois, level.positive_iou).labels.tolist() for level in LEVELS] == [
        [3, 1, 0],
        [3, 1, 0],
        [0, 1, 0],
    ]
    found = found_in(CELLS, rois[:2], 0.7)
    assert found.ids.tolist() == [7, 5]
    assert torch.equal(found.aims_at, CELLS["boxes"])


def test_images_of_fewer_rois_and_cells_are_matched_as_they_are_alone():
    rois = [torch.tensor([[0.0, 0.0, 10.0, 6.5], [0.0, 0.0, 1.0, 1.0]]), torch.tensor([[20.0, 20.0, 40.0, 41.0]])]
    empty = {name: values[:0] for name, values in CELLS.items()}
    first, second = (torch.nn.utils.rnn.pad_sequence(each, batch_first=True) for each in (rois, rois[::-1]))
    assert matched(first, truth_of([CELLS, empty]), 0.5).labels.tolist() == [[3, 0], [0, -1]]
    assert matched(second, truth_of([CELLS, empty]), 0.5).labels.tolist() == [[1, -1], [0, 0]]


def test_a_roi_that_finds_an_ignored_cell_loses_nothing():
    sliver = CELLS | {"ignored": torch.tensor([[60.0, 0.0, 70.0, 3.0]])}
    rois = torch.tensor([[60.0, 0.0, 70.0, 4.0], [60.0, 0.0, 70.0, 9.0]])  # IoU .75 and .33
    labels = found_in(sliver, rois, 0.5).labels
    assert labels.tolist() == [-1, 0]
    losses = box_losses(torch.tensor([[0.0, 99.0]] * 2), torch.ones(2, 4), labels, torch.zeros(2, 4))
    assert [each.item() for each in losses] == pytest.approx([99 / 2, 0])


def test_a_later_stage_moves_by_larger_deltas():
    box, cell = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[1.0, 0.0, 11.0, 10.0]])
    across = [level.coder.encode_single(cell, box)[0, 0].item() for level in LEVELS]
    assert across == pytest.approx([1.0, 2.0, 3.0])  # a tenth of the width, by 10, 20, 30


def test_refined_boxes_stay_in_their_image_and_never_vanish():
    decoded = torch.tensor([[-5.0, 2.0, 8.0, 9.0], [3.0, 3.0, 99.0, 9.0], [30.0, 4.0, 31.0, 4.0]])
    first, second = refined([torch.zeros(1, 4), torch.zeros(2, 4)], decoded, [(20, 20), (20, 20)])
    assert first.tolist() == [[0.0, 2.0, 8.0, 9.0]]
    assert second.tolist() == [[3.0, 3.0, 20.0, 9.0], [20.0, 4.0, 21.0, 5.0]]


def test_rare_classes_are_told_to_win_by_more():
    offsets = class_offsets((0.9, 0.1), 1.0)
    assert offsets.tolist() == pytest.approx([0.0, 0.0, -2.1972], abs=1e-4)  # ln 9 less than the frequent one
    assert torch.equal(class_offsets((0.9, 0.1), 0.5), offsets / 2)


def test_the_adjustment_is_part_of_training_alone(micro, batch_of_two):
    shares = (0.7, 0.1, 0.1, 0.1)
    plain, adjusted = (
        seeded(replace(micro, logit_adjustment=strength, class_shares=shares)) for strength in (0.0, 1.0)
    )
    images, targets = batch_of_two
    losses = [model.train()(images, targets, [1, 2])["loss_classifier"].item() for model in (plain, adjusted)]
    assert losses[0] != losses[1]
    found = [model.eval()(images)[0]["scores"] for model in (plain, adjusted)]
    assert torch.equal(*found)
    assert set(plain.state_dict()) == set(adjusted.state_dict())


@pytest.mark.parametrize("shares", [None, (0.5, 0.5), (1.0, 0.0, 0.0, 0.0)])
def test_shares_that_say_nothing_of_a_class_are_refused(micro, shares):
    with pytest.raises(ValueError, match=r"model\.class_shares: expected a share above 0 for each of 4 classes"):
        build_model(replace(micro, logit_adjustment=1.0, class_shares=shares))


def test_every_stage_of_a_cascade_learns(micro, batch_of_two):
    model = seeded(replace(micro, box_stages=3)).train()
    images, targets = batch_of_two
    losses = model(images, targets, [1, 2])
    (losses["loss_classifier"] + losses["loss_box_reg"]).backward()
    stages = [model.roi_heads.box_predictor, *(stage.predictor for stage in model.roi_heads.later_stages)]
    assert len(stages) == 3
    for predictor in stages:
        assert predictor.bbox_pred.out_features == 4
        assert predictor.cls_score.weight.grad.abs().sum() > 0
        assert predictor.bbox_pred.weight.grad.abs().sum() > 0


def seeded(config):
    torch.manual_seed(0)
    return build_model(config)
