"""`cellseg export`, and the file that it writes, as a program without torch reads it."""

import json
import subprocess
import sys
import typing
from dataclasses import replace

import numpy as np
import pytest
import torch

from cellseg import onnx_export
from cellseg.backbones import build_backbone
from cellseg.checkpoint import Checkpoint, load, save
from cellseg.commands import export
from cellseg.commands.export import Export
from cellseg.config import Backbone, PredictConfig
from cellseg.fingerprint import Plan
from cellseg.model import build_model, state_of
from cellseg.onnx_check import agreements, painted
from cellseg.onnx_export import metadata_of, to_onnx, with_threshold
from cellseg.onnx_network import OneImage
from cellseg.predict import detect

onnx = pytest.importorskip("onnx", reason="pip install 'cellseg[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'cellseg[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'cellseg[onnx]'")

PLAN = Plan("d1gest", ("a", "b", "c", "d"), "bgr", 1.5, 64, (8.0, 16.0), (1.0,), 30, 15.0, 8)
POINT = PredictConfig(
    zoom=1.5,
    tile=512,
    overlap=32,
    proposals=60,
    score_threshold=0.0,
    detections=30,
    calibration=((1.2, 0.3, -0.1, 0.2), (0.7, 0.0, -0.2, 0.0), (1.0, 0.0, 0.0, 0.0), (2.0, 0.0, 0.0, 1.0)),
)
ALONE = """
import json, sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
names = [each.name for each in session.get_outputs()]
found = dict(zip(names, session.run(None, {"image": np.load(sys.argv[2])})))
np.savez(sys.argv[3], **found)
metadata = session.get_modelmeta().custom_metadata_map
print(json.dumps([sorted({"torch", "cellseg", "onnx"} & set(sys.modules)), json.loads(metadata["class_names"])]))
"""


def network_of(config):
    """An untrained network, which finds cells in anything at a threshold of 0."""
    torch.manual_seed(0)
    model = build_model(config, pretrained=False).eval()
    if config.mask_quality:
        torch.nn.init.constant_(model.roi_heads.mask_quality.output.bias, 0.5)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run_config):
    """A folder with best.pt."""
    folder = tmp_path_factory.mktemp("export")
    config = replace(run_config, model=replace(run_config.model, norm="frozen"), predict=POINT)
    save(Checkpoint(state_of(network_of(config.model)), config, PLAN, "abc123", 7, {}, {}), folder / "best.pt")
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    """The model of that checkpoint."""
    checkpoint = load(folder / "best.pt")
    return to_onnx(OneImage(network_of(checkpoint.config.model), POINT), metadata_of(checkpoint))


@pytest.fixture
def at_once(monkeypatch, exported):
    """Exports give the model that is there already: torch takes ten seconds for one."""
    monkeypatch.setattr(onnx_export, "to_onnx", lambda _network, _metadata: exported)
    return exported


def test_what_is_written_was_checked_on_three_sizes(folder, at_once, capsys):
    assert Export(folder / "best.pt", onnx=folder / "best.onnx").run() == 0
    *sizes, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in sizes] == ["96 x 128 px", "160 x 160 px", "256 x 192 px"]
    assert all("30 cells over score 0, 0 found by one alone" in line for line in sizes)
    assert last == f"{folder / 'best.onnx'}: {(folder / 'best.onnx').stat().st_size / 1e6:.1f} MB"
    onnx.checker.check_model(onnx.load(folder / "best.onnx"), full_check=True)
    (folder / "best.onnx").unlink()


def test_a_process_with_numpy_and_onnxruntime_alone_finds_what_predict_finds(folder, exported):
    (folder / "alone.onnx").write_bytes(exported.SerializeToString())
    (image,) = painted(15.0, [(96, 128)])
    np.save(folder / "image.npy", image)
    files = [str(folder / name) for name in ("alone.onnx", "image.npy", "found.npz")]
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, *files], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], ["a", "b", "c", "d"]]
    found = np.load(folder / "found.npz")
    (expected,) = detect(network_of(load(folder / "best.pt").config.model), image, POINT)
    assert [found[name].dtype for name in found] == [np.float32, np.int64, np.float32, np.float32]
    assert len(found["boxes"]) == len(expected.boxes) == 30
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)
    places = [np.abs(found["boxes"] - box).max(axis=1).argmin() for box in expected.boxes.numpy()]
    assert sorted(places) == list(range(30))
    for name, limit in (("boxes", 0.01), ("labels", 0), ("scores", 1e-4), ("masks", 1e-3)):
        assert np.abs(found[name][places] - getattr(expected, name).numpy()).max() <= limit, name


def test_the_metadata_tell_what_a_program_must_know(exported):
    metadata = {each.key: each.value for each in exported.metadata_props}
    assert json.loads(metadata["class_names"]) == ["a", "b", "c", "d"]
    told = {"format": "1", "channel_order": "rgb", "color": "rgb", "zoom": "1.5", "commit": "abc123", "epoch": "7"}
    point = {"score_threshold": "0.0", "box_nms": "0.5", "detections": "30", "tile": "512", "overlap": "32"}
    assert {**told, **point, "mask_threshold": "0.5", "pq_threshold": "0.5"}.items() <= metadata.items()
    assert json.loads(metadata["config"])["predict"]["calibration"][0] == [1.2, 0.3, -0.1, 0.2]


def test_inputs_and_outputs_are_named_and_so_are_their_sizes(exported):
    def sizes(value):
        return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]

    assert {each.name: sizes(each) for each in exported.graph.input} == {"image": ["height", "width", 3]}
    assert {each.name: sizes(each) for each in exported.graph.output} == {
        "boxes": ["cells", 4],
        "labels": ["cells"],
        "scores": ["cells"],
        "masks": ["cells", 28, 28],
    }


def test_where_there_is_no_cell_the_outputs_are_empty(exported):
    session = onnxruntime.InferenceSession(with_threshold(exported, 1.0).SerializeToString())
    found = session.run(None, {"image": np.full((64, 50, 3), 255, np.uint8)})
    assert [each.shape for each in found] == [(0, 4), (0,), (0,), (0, 28, 28)]


def test_an_image_smaller_than_a_stride_can_be_seen(exported, folder):
    network = OneImage(network_of(load(folder / "best.pt").config.model), POINT)
    (agreement,) = agreements(exported, network, painted(15.0, [(5, 3)]))
    assert agreement.holds
    assert agreement.cells


OTHERS = {
    "every head, ConvNeXt": (
        {"backbone": "convnext_tiny", "box_stages": 3, "mask_quality": True, "mask_size": 56}
        | {"stages": 1, "roi_levels": 1, "anchor_sizes": (12.0,)},
        {"zoom": 0.61},
        "rgb",
    ),
    "resnet50_v2, group norm, a level more": (
        {"backbone": "resnet50_v2", "norm": "group", "box_stages": 2, "num_cell_classes": 1}
        | {"stages": 1, "roi_levels": 1, "fpn_channels": 32, "extra_level": True},
        {"zoom": None, "short_side": 120, "rescore": False},
        "gray",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_agree_on_three_sizes(micro, name):
    model, point, color = OTHERS[name]
    network = OneImage(network_of(replace(micro, **model)), replace(POINT, calibration=None, **point), color)
    exported = to_onnx(network, {})
    found = agreements(exported, network, painted(15.0))
    assert [each.size_hw for each in found] == [(96, 128), (160, 160), (256, 192)]
    assert all(each.holds and each.cells for each in found), found
    nothing = onnxruntime.InferenceSession(with_threshold(exported, 1.0).SerializeToString())
    assert len(nothing.run(None, {"image": np.zeros((30, 40, 3), np.uint8)})[0]) == 0


def test_every_backbone_is_built_of_layers_that_are_exported_above(micro):
    """They differ in how many they have."""
    with torch.device("meta"):
        layers = {type(each) for model, _, _ in OTHERS.values() for each in layers_of(replace(micro, **model))}
        layers |= {type(each) for each in layers_of(replace(micro, norm="frozen"))}
        for name in typing.get_args(Backbone):
            for norm in ("batch", "frozen", "group"):
                other = replace(micro, backbone=name, norm=norm, stages=4, fpn_channels=32, extra_level=True)
                assert {type(each) for each in layers_of(other)} <= layers, (name, norm)


def layers_of(config):
    return build_backbone(config).modules()


def test_a_network_that_disagrees_is_not_written_and_what_was_there_stays(folder, at_once, monkeypatch):
    broken = onnx.ModelProto()
    broken.CopyFrom(at_once)
    (bias,) = (each for each in broken.graph.initializer if each.name.endswith("mask_fcn_logits.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    monkeypatch.setattr(onnx_export, "to_onnx", lambda _network, _metadata: broken)
    (folder / "old.onnx").write_text("before")
    names = {each.name for each in folder.iterdir()}
    with pytest.raises(ValueError, match=r"old.onnx: not written, as onnxruntime and PyTorch disagree: 96 x 128 px"):
        Export(folder / "best.pt", onnx=folder / "old.onnx").run()
    assert (folder / "old.onnx").read_text() == "before"
    assert {each.name for each in folder.iterdir()} == names


def test_a_checkpoint_of_several_views_is_told_that_the_file_has_one(folder, at_once, capsys):
    checkpoint = load(folder / "best.pt")
    config = replace(checkpoint.config, predict=replace(POINT, views=4, zooms=(1.0, 1.2)))
    save(replace(checkpoint, config=config), folder / "views.pt")
    Export(folder / "views.pt", onnx=folder / "views.onnx").run()
    first = capsys.readouterr().out.splitlines()[0]
    assert "looks at each tile 8 times (views 4, zooms 1.0, 1.2), the ONNX file once, as it is" in first


def test_without_onnx_the_error_names_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name.startswith("onnxr") else object())
    with pytest.raises(ValueError, match=r"export: needs onnxruntime, .* pip install 'cellseg\[onnx\]'"):
        Export(tmp_path / "best.pt", onnx=tmp_path / "best.onnx").run()


def test_a_missing_folder_or_checkpoint_is_named_before_anything_is_exported(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        Export(tmp_path / "best.pt", onnx=tmp_path / "nowhere" / "best.onnx").run()
    with pytest.raises(FileNotFoundError, match=r"best\.pt: no such checkpoint"):
        Export(tmp_path / "best.pt", onnx=tmp_path / "best.onnx").run()


def test_what_torch_cannot_write_is_said_in_one_line(micro):
    network = OneImage(network_of(micro), POINT)
    network.network.backbone.fpn = torch.nn.Module()  # no forward
    with pytest.raises(ValueError, match=r"^export: torch .* cannot write this network as ONNX: .*forward.*$"):
        to_onnx(network, {})
