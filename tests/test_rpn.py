from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from cellseg.matching import IGNORED, match
from cellseg.model import build_model

BOXES = torch.tensor([[8.0, 8.0, 20.0, 20.0], [30.0, 40.0, 44.0, 50.0]])


@pytest.fixture
def network(micro):
    """A network whose RPN looks at all anchors, so that nothing is left to chance."""
    torch.manual_seed(0)
    model = build_model(replace(micro, rpn_batch=10_000))
    torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.3)
    torch.nn.init.normal_(model.rpn.head.bbox_pred.weight, std=0.1)
    return model


def target(boxes, ignored=BOXES[:0]):
    return {"boxes": boxes, "ignored": ignored, "generator": None}


def features_of(model, count=2):
    torch.manual_seed(1)
    images = torch.rand(count, 3, 64, 64)
    return ImageList(images, [(64, 64)] * count), model.backbone(images)


def test_proposals_are_torchvision_s_though_only_the_best_are_decoded(network):
    rpn = network.rpn.eval()
    images, features = features_of(network)
    proposals, losses = rpn(images, features)
    expected, _ = RegionProposalNetwork.forward(rpn, images, features)
    assert losses == {}
    assert len(proposals[0]) > 10
    for mine, theirs in zip(proposals, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_losses_over_all_anchors_are_torchvision_s(network):
    rpn = network.rpn.train()
    rpn.fg_bg_sampler.positive_fraction = 0.9
    images, features = features_of(network)
    targets = [target(BOXES), target(BOXES[:1])]
    _, losses = rpn(images, features, targets)
    _, expected = RegionProposalNetwork.forward(rpn, images, features, targets)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-4)
        assert loss > 0


def test_a_batch_of_another_size_has_anchors_of_its_own(network):
    rpn = network.rpn.train()
    rpn.fg_bg_sampler.positive_fraction = 0.9
    for height, width in ((64, 64), (64, 96), (96, 64)):
        images = ImageList(torch.rand(1, 3, height, width), [(height, width)])
        features = network.backbone(images.tensors)
        _, losses = rpn(images, features, [target(BOXES)])
        _, expected = RegionProposalNetwork.forward(rpn, images, features, [target(BOXES)])
        assert losses["loss_objectness"].item() == pytest.approx(expected["loss_objectness"].item(), rel=1e-4)


def test_a_sliver_of_one_image_is_none_of_another(network):
    rpn = network.rpn.train()
    rpn.fg_bg_sampler.positive_fraction = 0.9
    images, features = features_of(network)
    targets = [target(BOXES[:1], BOXES[1:]), target(BOXES)]
    _, both = rpn(images, features, targets)
    sums, count = 0, 0
    for image, each in enumerate(targets):
        alone = ImageList(images.tensors[image : image + 1], images.image_sizes[:1])
        own = {name: values[image : image + 1] for name, values in features.items()}
        grids = rpn._grids(alone, list(own.values()))
        matches = match(grids, [torch.cat([each["boxes"], each["ignored"]])])
        looked_at = int(((matches != IGNORED) & (matches < len(each["boxes"]))).sum())
        sums, count = sums + looked_at * rpn(alone, own, [each])[1]["loss_objectness"].item(), count + looked_at
    assert both["loss_objectness"].item() == pytest.approx(sums / count, rel=1e-5)


def test_losses_are_means_over_the_anchors_that_are_looked_at(network):
    """With objectness 0 everywhere a mean cross entropy is log 2, however many anchors are sampled."""
    rpn = network.rpn.train()
    torch.nn.init.zeros_(rpn.head.cls_logits.weight)
    rpn.fg_bg_sampler.batch_size_per_image = 12
    images, features = features_of(network)
    for boxes in (BOXES, torch.empty(0, 4)):
        _, losses = rpn(images, features, [target(boxes)] * 2)
        assert losses["loss_objectness"].item() == pytest.approx(F.softplus(torch.zeros(())).item(), rel=1e-5)


def test_anchors_that_find_a_sliver_are_neither_cell_nor_background(network):
    """The losses are those over the other anchors: as if the sliver's had not been there."""
    rpn = network.rpn.train()
    rpn.fg_bg_sampler.positive_fraction = 0.9
    images, features = features_of(network, 1)
    grids = rpn._grids(images, list(features.values()))
    matches = match(grids, [BOXES])[0]
    found_by_last = matches == len(BOXES) - 1
    scores = concat_box_prediction_layers(*rpn.head(list(features.values())))[0].flatten()
    _, losses = rpn(images, features, [target(BOXES[:-1], BOXES[-1:])])
    looked_at = (matches != IGNORED) & ~found_by_last
    truth = (matches >= 0).float()
    expected = F.binary_cross_entropy_with_logits(scores[looked_at], truth[looked_at])
    assert found_by_last.any()
    assert losses["loss_objectness"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_is_sampled_follows_from_an_image_s_generator(network):
    rpn = network.rpn.train()
    rpn.fg_bg_sampler.batch_size_per_image = 12
    images, features = features_of(network, 1)

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        return rpn(images, features, [target(BOXES) | {"generator": generator}])[1]["loss_objectness"].item()

    assert loss(3) == loss(3) != loss(4)


def test_training_without_targets_is_refused(network):
    images, features = features_of(network)
    with pytest.raises(ValueError, match="rpn: expected targets in training, got None"):
        network.rpn.train()(images, features)
