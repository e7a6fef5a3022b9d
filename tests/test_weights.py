import logging
import re
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from torchvision.models import convnext_tiny, resnet18
from torchvision.models.detection import maskrcnn_resnet50_fpn

from cellseg import checkpoint
from cellseg.backbones import build_backbone
from cellseg.config import DatasetConfig, ModelConfig
from cellseg.dataset import open_dataset
from cellseg.experiment import Silent, planned
from cellseg.model import build_model, set_bf16
from cellseg.predict import predict
from cellseg.train import fit
from cellseg.weights import _renamed, load_pretrained, read_weights

NAMES = ("round", "flat", "long", "odd")
ADDRESS = "https://download.pytorch.org/models/resnet18-f37072fd.pth"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The file of a ResNet-18 classifier whose numbers are all 0.5."""
    path = tmp_path_factory.mktemp("weights") / "classifier.pt"
    state = {name: each.clone() for name, each in resnet18().state_dict().items()}
    torch.save({k: torch.full_like(v, 0.5) if v.is_floating_point() else v for k, v in state.items()}, path)
    return path


@pytest.fixture(scope="module", params=["plain", "cascade"])
def trained(request, tmp_path_factory, folder, run_config):
    """The checkpoint of a network that was trained for 16 steps on the classes NAMES, and the data."""
    config = replace(run_config, train=replace(run_config.train, epochs=1, steps_per_epoch=16))
    if request.param == "cascade":
        config = replace(config, model=replace(config.model, box_stages=2, mask_quality=True))
    data = open_dataset(folder, DatasetConfig(class_names=NAMES))
    prepared = planned(config, folder, data)
    place = tmp_path_factory.mktemp("trained")
    return fit(prepared.config, prepared.plan, data, [0, 1, 2, 3], [], place, Silent()), data


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch's folder for weights, empty, on a machine without a network."""

    def unreachable(url, *_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_a_classifier_s_file_fills_the_body_and_nothing_else(micro, classifier):
    torch.manual_seed(0)
    before = build_model(micro, pretrained=False).state_dict()
    torch.manual_seed(0)
    model = build_model(replace(micro, weights=str(classifier), norm="batch"))
    for name, value in model.state_dict().items():
        if name.startswith("backbone.body.") and "num_batches" not in name:
            assert (value == 0.5).all(), name
        else:
            assert torch.equal(value, before[name]), name


def test_the_report_counts_what_was_loaded_and_names_what_was_not(micro, classifier):
    config = replace(micro, weights=str(classifier))
    model = build_model(config, pretrained=False)
    report = load_pretrained(model, config)
    names = list(model.state_dict())
    body = sum(name.startswith("backbone.body.") for name in names)
    assert f"{classifier}: {body} of {len(names)} tensors loaded; initialised at random: " in report
    assert "backbone.fpn.inner_blocks.0.0" in report
    assert "roi_heads.mask_predictor.mask_fcn_logits" in report
    assert "backbone.body" not in report


def test_a_convnext_classifier_s_file_fills_the_body(tmp_path):
    path = tmp_path / "convnext.pt"
    with torch.device("meta"):
        names = convnext_tiny().state_dict()
    used = {name: each for name, each in names.items() if name.startswith(tuple(f"features.{k}." for k in range(4)))}
    torch.save({name: torch.full(each.shape, 0.5) for name, each in used.items()}, path)
    config = ModelConfig(backbone="convnext_tiny", stages=2, extra_level=False, fpn_channels=8, weights=str(path))
    model = torch.nn.Module()
    model.backbone = build_backbone(config)
    load_pretrained(model, config)
    assert all((each == 0.5).all() for each in model.backbone.body.state_dict().values())


def test_a_network_s_own_file_fills_all_but_other_classes(micro, tmp_path):
    source = build_model(replace(micro, num_cell_classes=2))
    torch.save({"model": source.state_dict(), "epoch": 3}, tmp_path / "own.pt")
    config = replace(micro, weights=str(tmp_path / "own.pt"), norm="batch")
    model = build_model(config, pretrained=False)
    assert "box_predictor.cls_score" in load_pretrained(model, config)
    differing = [name for name, each in source.state_dict().items() if model.state_dict()[name].shape != each.shape]
    assert {name.split(".")[-2] for name in differing} == {"cls_score", "bbox_pred", "mask_fcn_logits"}
    for name, value in model.state_dict().items():
        assert name in differing or torch.equal(value, source.state_dict()[name])


def old_and_new(path, names):
    """The network of a checkpoint, and one of these classes that begins with it, before any step."""
    old, saved = checkpoint.load_model(path)
    set_bf16(old, False)
    config = replace(saved.config.model, weights=str(path), norm="batch", num_cell_classes=len(names))
    torch.manual_seed(5)
    return old, build_model(config, class_names=names).eval(), saved.config.predict


@pytest.mark.parametrize("names", [NAMES, ("odd", "long", "round", "flat")])
def test_a_network_of_the_same_classes_in_any_order_finds_what_the_other_found(trained, names):
    path, data = trained
    *networks, config = old_and_new(path, names)
    every = replace(config, score_threshold=0.0, detections=60)
    old, new = (
        sorted((of[each["category_id"] - 1], each["bbox"], each["image_id"], each["score"]) for each in results)
        for of, results in zip(
            (NAMES, names), (predict(network, data.identified([0, 3]), every) for network in networks), strict=True
        )
    )
    assert len({name for name, *_ in old}) == 4
    for (name, box, *rest), (expected, expected_box, *others) in zip(new, old, strict=True):
        assert (name, box, rest) == (expected, pytest.approx(expected_box, abs=0.02), pytest.approx(others, abs=1e-5))


def said_of_rois(network, image, label):
    """What the heads say of three RoIs about one class: its logit by each stage, boxes, masks, and their quality."""
    heads, rois = network.roi_heads, [torch.tensor([[4.0, 8, 18, 20], [22, 8, 36, 24], [0, 40, 60, 70]])]
    with torch.inference_mode():
        batch, _ = network.transform([torch.from_numpy(image.transpose(2, 0, 1).copy())])
        features = network.features(batch)
        pooled = heads.box_roi_pool(features, rois, batch.image_sizes)
        logits = [stage(pooled)[0][:, label] for stage in heads._stages()]
        _, (boxes,) = heads.scored(features, rois, batch.image_sizes)
        (masks,) = heads.masked(features, rois, [torch.full((3,), label)], batch.image_sizes)
    return [*logits, boxes[:, label], *(each for each in masks if each is not None)]


def test_a_network_of_other_classes_says_of_those_it_shares_what_the_other_said(trained, caplog):
    path, data = trained
    names = ("new", "long", "newer", "round", "newest")
    caplog.set_level(logging.INFO, "cellseg")
    old, new, _ = old_and_new(path, names)
    whole = r"(\d+) of \1 tensors loaded; initialised at random: none"
    assert re.search(rf"{whole}; classes taken over: long, round; begun anew: new, newer, newest$", caplog.messages[-1])
    image = data.image(0)
    for name in ("long", "round"):
        before = said_of_rois(old, image, NAMES.index(name) + 1)
        for said, expected in zip(said_of_rois(new, image, names.index(name) + 1), before, strict=True):
            assert torch.allclose(said, expected, atol=1e-4)
    another = said_of_rois(old, image, NAMES.index("flat") + 1)[0]
    assert not torch.allclose(said_of_rois(new, image, names.index("new") + 1)[0], another, atol=0.1)


def test_a_backbone_that_would_be_at_random_in_part_is_refused(trained):
    path, _ = trained
    config = replace(checkpoint.load(path).config.model, weights=str(path), norm="batch")
    for other in ({"backbone": "resnet34"}, {"stages": 3, "anchor_sizes": None}):
        with pytest.raises(
            ValueError, match=r"\d+ of \d+ tensors of the backbone fit .* give the --model.backbone, .*"
        ):
            build_model(replace(config, **other))


def old_name(name):
    """That of a layer of torchvision's detectors before 0.13, as the file of the first COCO weights has it."""
    name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name).replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(r"mask_head\.(\d)\.0\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}.", name)


def test_the_names_of_the_first_coco_weights_are_those_that_torchvision_takes_for_old():
    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        state = {old_name(name): each for name, each in theirs.state_dict().items()}
    assert set(state) != set(theirs.state_dict())
    assert not any(theirs.load_state_dict(dict(state), assign=True))
    assert (
        {_renamed(name) for name in state}
        == {_renamed(name) for name in theirs.state_dict()}
        == set(theirs.state_dict())
    )


def test_a_file_of_old_names_fills_the_whole_network(micro, tmp_path):
    source = build_model(micro)
    torch.save({old_name(name): each for name, each in source.state_dict().items()}, tmp_path / "old.pt")
    config = replace(micro, weights=str(tmp_path / "old.pt"), norm="batch")
    model = build_model(config, pretrained=False)
    assert load_pretrained(model, config).endswith("initialised at random: none")
    assert all(torch.equal(each, source.state_dict()[name]) for name, each in model.state_dict().items())


def test_scales_of_batch_statistics_are_not_given_to_a_layer_without(micro, classifier):
    with pytest.raises(ValueError, match=r"batch normalisation, those of --model.norm group have not; give .* auto"):
        build_model(replace(micro, weights=str(classifier), norm="group"))


def test_another_number_of_anchors_leaves_the_rpn_s_predictor_at_random_and_says_so(micro, tmp_path):
    torch.save(build_model(micro).state_dict(), tmp_path / "own.pt")
    config = replace(micro, weights=str(tmp_path / "own.pt"), aspect_ratios=(0.5, 1.0, 2.0))
    report = load_pretrained(build_model(config, pretrained=False), config)
    assert report.endswith("initialised at random: rpn.head.bbox_pred, rpn.head.cls_logits")


def test_what_was_loaded_is_logged(micro, caplog):
    caplog.set_level(logging.INFO, "cellseg")
    build_model(micro)
    assert caplog.messages == ["weights: none; all layers initialised at random"]


def test_weights_of_which_nothing_fits_are_refused(micro, tmp_path):
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="none of its 1 tensors fits resnet18"):
        build_model(replace(micro, weights=str(tmp_path / "other.pt")))


def test_a_missing_file_is_named(micro):
    with pytest.raises(FileNotFoundError, match=r"--weights gone\.pt: no such file; expected coco, imagenet, none"):
        build_model(replace(micro, weights="gone.pt"))


def test_coco_weights_of_a_backbone_that_has_none_are_refused(micro):
    with pytest.raises(ValueError, match="torchvision has them for resnet50, resnet50_v2, not for resnet18"):
        build_model(replace(micro, weights="coco"))


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"weight": 3}])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(ValueError, match="expected a state_dict of tensors, or one under the key 'model'"):
        read_weights(tmp_path / "list.pt")


def test_without_a_network_the_message_tells_address_place_and_way_out(micro, cache):
    with pytest.raises(FileNotFoundError) as caught:
        build_model(replace(micro, weights="imagenet"))
    for part in (ADDRESS, "no route to host", str(cache / "resnet18-f37072fd.pth"), "--weights none"):
        assert part in str(caught.value)


def test_a_file_put_into_the_cache_is_used_without_a_network(micro, cache, classifier):
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").write_bytes(classifier.read_bytes())
    model = build_model(replace(micro, weights="imagenet"))
    assert (model.backbone.body.conv1.weight == 0.5).all()


def test_half_a_file_in_the_cache_is_named(micro, cache, classifier):
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").write_bytes(classifier.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"resnet18-f37072fd\.pth: expected tensors and plain values"):
        build_model(replace(micro, weights="imagenet"))


def test_a_download_with_another_hash_is_refused(micro, cache, classifier, monkeypatch):
    asked = []

    def wrong_content(url, path, hash_prefix, progress):
        asked.append((url, hash_prefix))
        raise RuntimeError('invalid hash value (expected "f37072fd", got "0123")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", wrong_content)
    with pytest.raises(FileNotFoundError, match="invalid hash value"):
        build_model(replace(micro, weights="imagenet"))
    assert asked == [(ADDRESS, "f37072fd")]
