from dataclasses import replace

import numpy as np
import pytest
import torch

from cellseg.config import PredictConfig
from cellseg.ensemble import Ensemble, Member, Seen, _rois, ensemble_of, found_by
from cellseg.model import build_model, set_operating_point
from cellseg.predict import detect, predict
from cellseg.views import VIEWS, View

POINT = PredictConfig(zoom=1.0, tile=0, proposals=40, score_threshold=0.0, detections=12)
EVERYWHERE = torch.tensor([[-torch.inf, -torch.inf, torch.inf, torch.inf]])


def network_of(config, seed=0):
    """An untrained network that finds cells in noise, surer of some than of others."""
    torch.manual_seed(seed)
    model = build_model(config)
    torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.3)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def network(micro):
    return network_of(micro)


@pytest.fixture(scope="module")
def noise():
    """Not square, and no multiple of a stride."""
    return np.random.default_rng(0).integers(0, 256, (50, 66, 3), dtype=np.uint8)


def found_in(model, image, config=POINT):
    """All detections, the surest first."""
    (found,) = detect(model, image, config)
    return found[found.scores.argsort(descending=True)]


def assert_alike(one, other, atol=1e-3):
    assert len(one.boxes) == len(other.boxes) > 5
    assert one.labels.tolist() == other.labels.tolist()
    for name in ("boxes", "scores", "masks"):
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=atol), name


@torch.inference_mode()
def test_one_view_of_one_network_is_what_the_network_returns(network, noise):
    set_operating_point(network, POINT)
    images = [torch.from_numpy(noise).permute(2, 0, 1)]
    cores = torch.tensor([[0.0, 0.0, 40.0, 50.0]])
    (plain,) = network(images, cores=cores)
    (found,) = found_by(ensemble_of(network).members(POINT, (50, 66)), images, cores)
    assert len(found["boxes"]) > 5
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_a_member_twice_says_what_it_says_once(micro, noise):
    network = network_of(replace(micro, rpn_nms=0.999))  # no proposal is dropped but its double
    plain, twice = found_in(network, noise), found_in(Ensemble((network, network), (POINT, POINT)), noise)
    assert_alike(plain, twice, atol=1e-6)


@pytest.mark.parametrize(("count", "zooms"), [(2, (1.0,)), (4, (1.0,)), (8, (1.0,)), (8, (1.0, 1.5))])
def test_a_turned_image_has_the_same_cells_turned(network, noise, count, zooms):
    config = replace(POINT, views=count, zooms=zooms)
    found = found_in(network, noise, config)
    for view in VIEWS[1:count]:
        turned = view.of(torch.from_numpy(noise).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        other = found_in(network, turned, config)
        back = replace(other, boxes=view.boxes_back(other.boxes, (50, 66)), masks=view.masks_back(other.masks))
        assert_alike(found, back)


def test_without_views_a_turned_image_has_other_cells(network, noise):
    """The test above would see a difference."""
    found, other = found_in(network, noise), found_in(network, np.ascontiguousarray(noise[:, ::-1]))
    assert (found.scores - other.scores).abs().max() > 0.01


def test_a_network_trained_at_another_zoom_is_one_more_zoom(network, noise):
    several = Ensemble((network, network), (POINT, replace(POINT, zoom=2.0)))
    assert_alike(found_in(several, noise), found_in(network, noise, replace(POINT, zooms=(1.0, 2.0))), atol=1e-6)


def test_the_zoom_of_a_network_that_scales_to_a_short_side_follows_from_the_image(network):
    several = Ensemble((network, network), (POINT, replace(POINT, short_side=100)))
    assert [member.view.zoom for member in several.members(POINT, (50, 66))] == [1, 2]
    assert [member.view.zoom for member in several.members(POINT, (200, 200))] == [1, 0.5]


def test_every_network_has_every_view_at_every_zoom(network):
    several = Ensemble((network, network), (POINT, replace(POINT, zoom=1.5)))
    members = several.members(replace(POINT, views=4, zooms=(1.0, 2.0)), (50, 66))
    assert len({(member.view, index // 8) for index, member in enumerate(members)}) == 16
    assert {member.view.zoom for member in members} == {1, 1.5, 2, 3}


def test_a_calibration_is_doubted_where_it_was_not_fitted_to_what_is_predicted(network):
    learnt = replace(POINT, calibration=((0.5, 0.1, -0.1, 0.0),) * 4)
    alone, several = Ensemble((network,), (learnt,)), Ensemble((network, network), (learnt, POINT))
    assert alone.doubt(learnt) == ""
    assert "fitted to single networks" in alone.doubt(replace(learnt, views=2))
    assert "fitted to single networks" in several.doubt(learnt)
    assert several.doubt(POINT) == ""


def sure_of(label, mask_logit, config, seed):
    """A network that names every RoI the same class and draws all masks alike."""
    model = network_of(config, seed)
    heads = model.roi_heads
    for layer in (heads.box_predictor.cls_score, heads.mask_predictor.mask_fcn_logits):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        heads.box_predictor.cls_score.bias[label] = 50
        heads.mask_predictor.mask_fcn_logits.bias += mask_logit
    return model


def test_two_networks_of_other_anchors_zooms_and_masks_meet_half_way(micro, noise):
    other = replace(micro, anchor_sizes=(12.0, 24.0, 30.0), aspect_ratios=(0.5, 2.0), stages=3, mask_size=56)
    networks = sure_of(2, 0.0, micro, 0), sure_of(3, 50.0, other, 1)
    several = Ensemble(networks, (POINT, replace(POINT, zoom=1.5)))
    assert several.stride == 16
    (found,) = detect(several, noise, replace(POINT, rescore=False))
    assert set(found.labels.tolist()) == {2, 3}
    assert torch.allclose(found.scores, torch.tensor(0.5))
    assert found.masks.shape[1:] == (56, 56)
    assert torch.allclose(found.masks, torch.tensor(0.75))  # of 1/2 and 1
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([66, 50, 66, 50])).all()


@torch.inference_mode()
def test_qualities_are_the_means_of_the_networks_that_tell_them(micro, noise):
    class Fixed(torch.nn.Module):
        def __init__(self, quality):
            super().__init__()
            self.quality = quality

        def forward(self, pooled, probabilities):
            return torch.full((len(pooled), 4), self.quality)

    networks = [network_of(micro, seed) for seed in range(3)]
    networks[0].roi_heads.mask_quality, networks[2].roi_heads.mask_quality = Fixed(0.5), Fixed(0.9)
    for network in networks:
        set_operating_point(network, POINT)
    images = [torch.from_numpy(noise).permute(2, 0, 1)]
    (found,) = found_by([Member(network, View()) for network in networks], images, EVERYWHERE)
    assert len(found["qualities"]) == len(found["boxes"]) > 5
    assert torch.allclose(found["qualities"], torch.tensor(0.7))


def seen(boxes, objectness):
    return Seen(None, View(), {}, [(50, 50)], [torch.tensor(boxes)], [torch.tensor(objectness)])


def test_rois_are_the_surest_proposals_of_all_members_without_doubles():
    here, nearly_here, there = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]
    members = [seen([here, there], [0.8, 0.3]), seen([nearly_here], [0.9])]
    assert _rois(members, 0.7)[0].tolist() == [nearly_here, there]  # here meets nearly_here with an IoU of .9
    assert _rois(members, 0.95)[0].tolist() == [nearly_here, here, there]


@torch.inference_mode()
def test_every_member_brings_its_own_proposals(network, noise, monkeypatch):
    looked_at, scored = [], Seen.scored
    monkeypatch.setattr(Seen, "scored", lambda self, rois: looked_at.append(len(rois[0])) or scored(self, rois))
    found_in(network, noise, replace(POINT, proposals=3, views=4))
    assert len(looked_at) == 4
    assert len(set(looked_at)) == 1
    assert 3 < looked_at[0] <= 4 * 3


@torch.inference_mode()
def test_only_cells_centred_in_the_core_of_their_tile_are_kept(network, noise):
    set_operating_point(network, POINT)
    images = [torch.from_numpy(noise).permute(2, 0, 1)]
    members = ensemble_of(network).members(replace(POINT, views=4), (50, 66))
    left, right = torch.tensor([[-torch.inf, 0.0, 33.0, 50.0]]), torch.tensor([[33.0, 0.0, torch.inf, 50.0]])
    everywhere, one, other = (found_by(members, images, core)[0]["boxes"] for core in (EVERYWHERE, left, right))
    assert 0 < len(one) < len(everywhere)
    assert (one[:, ::2].mean(dim=1) < 33).all()
    assert len(one) + len(other) == len(everywhere)


def test_tiles_of_a_large_image_are_seen_in_all_views_too(network, noise):
    config = replace(POINT, tile=32, overlap=16, views=4)
    results = predict(network, [(1, noise)], config)
    assert len(results) > POINT.detections  # the cap of one tile
    for x, y, width, height in (result["bbox"] for result in results):
        assert 0 <= x <= x + width <= 66.01
        assert 0 <= y <= y + height <= 50.01


def test_members_that_find_nothing_give_nothing(network, noise):
    config = replace(POINT, views=8, score_threshold=1.0)
    assert predict(network, [(1, noise)], config) == []


def test_everything_that_can_be_turned_on_works_together(micro, batch_of_two):
    images, targets = batch_of_two
    options = {"box_stages": 3, "mask_quality": True, "mask_size": 56, "logit_adjustment": 0.5}
    torch.manual_seed(0)
    model = build_model(replace(micro, **options, class_shares=(0.7, 0.1, 0.1, 0.1)))
    sliver = torch.tensor([[0.0, 0.0, 6.0, 2.0]])
    losses = model.train()(images, [{**each, "ignored": sliver} for each in targets], [1, 2])
    torch.stack(list(losses.values())).sum().backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    config = PredictConfig(
        zoom=1.0,
        views=8,
        zooms=(1.0, 0.8),
        tile=0,
        proposals=20,
        detections=5,
        score_threshold=0.0,
        calibration=((0.5, 0.1, -0.1, 0.0),) * 4,
    )
    other = build_model(micro)  # of one stage, with masks of 28, and nothing to say of their quality
    found = predict(Ensemble((model, other), (config, config)), [(3, np.full((72, 80, 3), 200, np.uint8))], config)
    assert len(found) == 5
    assert all(0 < each["score"] < 1 and each["segmentation"]["size"] == [72, 80] for each in found)
