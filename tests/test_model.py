import shutil
import typing
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from cellseg import model as model_module
from cellseg.config import Backbone, ModelConfig, PredictConfig, TrainConfig
from cellseg.label_maps import target
from cellseg.model import build_model, place, set_bf16, set_operating_point, state_of, trainable_parameters

LOSSES = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}


def on_meta(config):
    with torch.device("meta"):
        return build_model(config, pretrained=False)


@pytest.fixture(scope="module")
def network(micro):
    torch.manual_seed(0)
    model = build_model(micro)
    set_operating_point(model, PredictConfig(score_threshold=0.0, detections=20, proposals=50))
    return model.eval()


def image_of(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def cells(*boxes, size_hw=(64, 64)):
    """The Target of rectangles (label, y, x, height, width)."""
    label_maps = torch.zeros(4, *size_hw, dtype=torch.int32)
    for number, (label, y, x, height, width) in enumerate(boxes, start=1):
        label_maps[label - 1, y : y + height, x : x + width] = number
    return target(label_maps.numpy())


def losses_of(micro, images, targets):
    torch.manual_seed(0)
    model = build_model(micro).train()
    losses = model(images, targets)
    sum(losses.values()).backward()
    return model, losses


def test_anchors_have_the_configured_sides_and_ratios(micro):
    model = build_model(replace(micro, anchor_sizes=(10.0, 14.0, 20.0, 28.0), aspect_ratios=(0.5, 1.0, 2.0)))
    generator = model.rpn.anchor_generator
    assert generator.num_anchors_per_location() == [6, 6]
    for level, sizes in zip(generator.cell_anchors, ((10, 14), (20, 28)), strict=True):
        widths, heights = (level[:, 2] - level[:, 0], level[:, 3] - level[:, 1])
        expected = [(size * ratio**-0.5, size * ratio**0.5) for ratio in (0.5, 1.0, 2.0) for size in sizes]
        assert widths.tolist() == pytest.approx([width for width, _ in expected], abs=1.01)  # rounded to whole pixels
        assert heights.tolist() == pytest.approx([height for _, height in expected], abs=1.01)
    assert model.rpn.head.cls_logits.out_channels == 6
    assert model.rpn.head.bbox_pred.out_channels == 24


def test_the_anchors_that_are_laid_out_are_the_configured_ones(network):
    """Anchors that torchvision swallowed without a word would be of 32 to 512 pixels."""
    laid_out = {}
    network.rpn.anchor_generator.register_forward_hook(
        lambda _m, _i, out: laid_out.update(all=out[0]), always_call=True
    )
    network([image_of(64, 64)])
    sides = (laid_out["all"][:, 2] - laid_out["all"][:, 0]).unique().tolist()
    assert sides == [8.0, 16.0]
    assert len(laid_out["all"]) == 16 * 16 + 8 * 8


def test_sizes_that_cannot_be_shared_out_over_the_levels_are_refused(micro):
    with pytest.raises(ValueError, match="as many sizes for each of the 2 levels"):
        build_model(replace(micro, anchor_sizes=(8.0, 16.0, 32.0)))


def test_all_training_caps_arrive(micro):
    config = replace(
        micro,
        rpn_pre_nms=11,
        rpn_post_nms=12,
        rpn_nms=0.61,
        rpn_batch=13,
        rpn_positive_fraction=0.31,
        roi_batch=14,
        roi_positive_fraction=0.41,
    )
    model = build_model(config).train()
    assert (model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n(), model.rpn.nms_thresh) == (11, 12, 0.61)
    assert model.rpn.fg_bg_sampler.batch_size_per_image == 13
    assert model.rpn.fg_bg_sampler.positive_fraction == 0.31
    assert model.roi_heads.fg_bg_sampler.batch_size_per_image == 14
    assert model.roi_heads.fg_bg_sampler.positive_fraction == 0.41


def test_the_operating_point_arrives_and_caps_the_detections(network):
    point = PredictConfig(proposals=31, score_threshold=0.0, box_nms=0.9, detections=7)
    before = PredictConfig(score_threshold=0.0, detections=20, proposals=50)
    set_operating_point(network, point)
    assert (network.rpn.pre_nms_top_n(), network.rpn.post_nms_top_n()) == (31, 31)
    assert network.roi_heads.nms_thresh == 0.9
    (found,) = network([image_of(64, 64)])
    assert len(found["boxes"]) == 7
    set_operating_point(network, replace(point, score_threshold=1.0))
    assert len(network([image_of(64, 64)])[0]["boxes"]) == 0
    set_operating_point(network, before)


@pytest.mark.parametrize("name", typing.get_args(Backbone))
def test_every_backbone_makes_a_network_within_the_competition_s_limit(name):
    model = on_meta(ModelConfig(backbone=name))
    assert trainable_parameters(model) < 200_000_000
    assert model.roi_heads.mask_roi_pool.output_size == (14, 14)


@pytest.mark.parametrize(
    ("name", "reference"), [("resnet50", maskrcnn_resnet50_fpn), ("resnet50_v2", maskrcnn_resnet50_fpn_v2)]
)
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_names_and_shapes_are_those_of_torchvision_s_coco_weights(name, reference, norm):
    # torchvision's own anchors: one size and three ratios a level
    own = on_meta(ModelConfig(backbone=name, norm=norm)).state_dict()
    with torch.device("meta"):
        theirs = reference(weights=None, weights_backbone=None).state_dict()
    shapes, expected = (
        {key: tuple(each.shape) for key, each in state.items() if "num_batches" not in key and "predictor" not in key}
        for state in (own, theirs)
    )
    assert shapes == expected
    predictors = {key for key in theirs if "predictor" in key}
    assert predictors == {key for key in own if "predictor" in key}
    assert {key for key in predictors if own[key].shape != theirs[key].shape} == {
        f"roi_heads.{layer}.{kind}"
        for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
        for kind in ("weight", "bias")
    }


def test_too_many_parameters_are_refused_with_their_number(micro):
    count = trainable_parameters(build_model(micro))
    assert trainable_parameters(build_model(replace(micro, parameter_limit=count))) == count
    with pytest.raises(ValueError, match=f"model: {count:,} trainable parameters, over the limit of {count - 1:,};"):
        build_model(replace(micro, parameter_limit=count - 1))


def test_training_returns_the_five_losses_and_reaches_every_layer(micro):
    targets = [cells((1, 8, 8, 12, 12), (2, 30, 40, 14, 10))]
    model, losses = losses_of(micro, [image_of(64, 64)], targets)
    assert losses.keys() == LOSSES
    assert all(torch.isfinite(each) and each > 0 for each in losses.values())
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in model.parameters())


def test_images_without_cells_train(micro):
    for targets in ([cells()], [cells((3, 20, 20, 16, 16)), cells()]):
        _, losses = losses_of(micro, [image_of(64, 64, seed) for seed in range(len(targets))], targets)
        assert losses.keys() == LOSSES
        assert all(torch.isfinite(each) for each in losses.values())
    assert losses_of(micro, [image_of(64, 64)], [cells()])[1]["loss_mask"] == 0


def test_a_cell_of_one_pixel_trains(micro):
    _, losses = losses_of(micro, [image_of(64, 64)], [cells((4, 63, 0, 1, 1))])
    assert all(torch.isfinite(each) for each in losses.values())


def test_images_of_different_sizes_train_together(micro):
    targets = [cells((1, 8, 8, 12, 12)), cells((2, 3, 4, 10, 10), size_hw=(20, 33))]
    _, losses = losses_of(micro, [image_of(64, 64), image_of(30, 50)], targets)  # the second map at zoom 1.5
    assert all(torch.isfinite(each) for each in losses.values())


@pytest.mark.parametrize("side", [28, 56])
def test_detections_are_masks_in_boxes_and_nothing_is_pasted(micro, side):
    torch.manual_seed(0)
    model = build_model(replace(micro, mask_size=side)).eval()
    set_operating_point(model, PredictConfig(score_threshold=0.0, detections=5))
    (found,) = model([image_of(70, 90)])
    assert found["boxes"].shape == (5, 4)
    assert found["masks"].shape == (5, side, side)
    assert ((found["masks"] >= 0) & (found["masks"] <= 1)).all()
    assert set(found["labels"].tolist()) <= {1, 2, 3, 4}
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)
    assert found["boxes"].min() >= 0
    assert found["boxes"][:, 2].max() <= 90
    assert found["boxes"][:, 3].max() <= 70


def test_no_detection_is_a_shape(network):
    set_operating_point(network, PredictConfig(score_threshold=1.0))
    first, second = network([image_of(64, 64), image_of(40, 40)])
    set_operating_point(network, PredictConfig(score_threshold=0.0, detections=20, proposals=50))
    for found in (first, second):
        assert {name: tuple(each.shape) for name, each in found.items()} == {
            "boxes": (0, 4),
            "labels": (0,),
            "scores": (0,),
            "masks": (0, 28, 28),
        }


def test_a_batch_detects_what_its_largest_image_alone_does(network):
    large, small = image_of(64, 64), image_of(24, 32, seed=1)
    alone, beside = network([large])[0], network([large, small])[0]
    for name in ("boxes", "labels", "scores", "masks"):
        assert torch.allclose(alone[name], beside[name], atol=1e-4), name


def test_padding_is_only_felt_near_the_border(network):
    """A smaller image is padded with the mean colour in a batch: its features change only near its lower right."""
    small = image_of(96, 96, seed=1)
    alone = network.backbone(network.transform([small])[0].tensors)["0"][0]
    beside = network.backbone(network.transform([small, image_of(192, 192)])[0].tensors)["0"][0]
    assert torch.allclose(alone[:, :8, :8], beside[:, :8, :8], atol=1e-5)
    assert not torch.allclose(alone, beside[:, :24, :24], atol=1e-5)


def test_bfloat16_does_not_round_box_coordinates(micro):
    """Under one autocast over all, torchvision decodes 301 to 300 and returns bfloat16 boxes."""
    torch.manual_seed(0)
    model = build_model(replace(micro, anchor_sizes=(10.0, 14.0))).eval()
    for layer in (model.rpn.head.bbox_pred, model.roi_heads.box_predictor.bbox_pred):
        nn.init.zeros_(layer.weight)  # detections are the anchors: multiples of 4 and 8, less or more 5 and 7
        nn.init.zeros_(layer.bias)
    set_operating_point(model, PredictConfig(score_threshold=0.0, detections=300, proposals=1000, box_nms=1.0))
    set_bf16(model, True)
    (found,) = model([image_of(16, 640)])
    assert found["boxes"].dtype == found["scores"].dtype == found["masks"].dtype == torch.float32
    xs = found["boxes"][:, [0, 2]]
    xs = xs[(xs > 256) & (xs < 640)]
    assert len(xs) > 100
    assert (xs.round() % 2 == 1).all()  # bfloat16 has even numbers alone from 256 on
    assert torch.allclose(xs, xs.round(), atol=1e-3)


def test_bfloat16_trains_and_can_be_turned_off(micro):
    torch.manual_seed(0)
    model = build_model(micro).train()
    set_bf16(model, True)
    losses = model([image_of(64, 64)], [cells((1, 8, 8, 12, 12))])
    assert {each.dtype for each in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert all(each.grad.dtype == torch.float32 for each in model.parameters() if each.grad is not None)
    set_bf16(model, False)
    (first, second) = (model.eval()([image_of(64, 64)])[0]["scores"] for _ in range(2))
    assert torch.equal(first, second)


def test_the_state_is_a_copy_on_the_cpu(network):
    state = state_of(network)
    assert state.keys() == network.state_dict().keys()
    name = "roi_heads.box_predictor.cls_score.bias"
    state[name].add_(1)
    assert not torch.equal(state[name], network.state_dict()[name])


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_backbone_gives_the_same_features_and_keeps_its_names(micro):
    config = replace(micro, stages=1, anchor_sizes=(8.0,))
    torch.manual_seed(0)
    model = build_model(config).eval()
    names = list(model.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        plain = model.backbone(image)["0"]
        place(model, torch.device("cpu"), TrainConfig(compile=True, amp=False))
        compiled = model.backbone(image)["0"]
    assert model.backbone._compiled_call_impl is not None
    assert torch.allclose(plain, compiled, atol=1e-4)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("able", [True, False])
def test_where_a_network_is_placed_it_computes_channels_last_and_as_exactly_as_asked(micro, monkeypatch, able):
    monkeypatch.setattr(model_module, "computes_in_bf16", lambda device: able)
    model = build_model(micro)
    place(model, torch.device("cpu"), TrainConfig(amp=False, channels_last=False))
    assert model.backbone.body.layer1[0].conv1.weight.is_contiguous()
    place(model, torch.device("cpu"), TrainConfig())
    assert model.backbone.body.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.transform([image_of(64, 64)])[0].tensors.is_contiguous(memory_format=torch.channels_last)
    assert model.bf16 == model.rpn.head.bf16 == model.roi_heads.bf16 == able
    place(model, torch.device("cpu"), TrainConfig(amp=False))
    assert not any((model.bf16, model.rpn.head.bf16, model.roi_heads.bf16))
