import os
from dataclasses import replace

import pytest
import torch

from cellseg import checkpoint
from cellseg import model as model_module
from cellseg.checkpoint import Checkpoint, load, load_ensemble, load_model, save
from cellseg.fingerprint import Plan
from cellseg.model import build_model, place, state_of

PLAN = Plan(
    digest="d1gest",
    class_names=("round", "flat", "long", "odd"),
    channel_order="bgr",
    zoom=1.5,
    crop=64,
    anchor_sizes=(8.0, 16.0),
    aspect_ratios=(1.0,),
    detections=100,
    median_side=20.5,
    most_cells=7,
)


class Harmful:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def saved(run_config):
    torch.manual_seed(0)
    model = build_model(run_config.model)
    return Checkpoint(state_of(model), run_config, PLAN, "abc123", 3, {"val/AP50": 0.25}, {"step": 6, "history": [{}]})


def test_what_is_saved_is_loaded(saved, tmp_path):
    path = tmp_path / "runs" / "best.pt"
    save(saved, path)
    found = load(path)
    assert replace(found, model={}) == replace(saved, model={})
    assert found.model.keys() == saved.model.keys()
    assert all(torch.equal(found.model[name], each) for name, each in saved.model.items())
    assert [each.name for each in path.parent.iterdir()] == ["best.pt"]


def test_a_checkpoint_from_before_the_plan_had_an_overlap_is_loaded(saved, tmp_path):
    path = tmp_path / "best.pt"
    save(saved, path)
    content = torch.load(path, weights_only=True)
    for name in ("overlap", "class_cells", "images", "image_weights", "mpp"):
        del content["plan"][name]
    del content["config"]["model"]["class_shares"]
    for name in ("class_names", "mpp"):
        del content["config"]["dataset"][name]
    torch.save(content, path)
    found = load(path)
    assert found.plan == PLAN
    assert (found.config.predict.overlap, found.config.model.class_shares) == (32, None)


def test_a_loaded_network_computes_the_same(saved, tmp_path):
    save(saved, tmp_path / "best.pt")
    model, found = load_model(tmp_path / "best.pt")
    assert not model.training
    assert found.plan == PLAN
    same = build_model(saved.config.model)
    same.load_state_dict(saved.model)
    place(same, torch.device("cpu"), saved.config.train)
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    first, second = (each.eval()([image])[0]["scores"] for each in (model, same))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("amp", "device", "bf16"),
    [(True, "cuda:0", True), (False, "cuda:0", False), (True, "cpu", True), (False, "cpu", False)],
)
def test_a_loaded_network_is_as_exact_as_its_training_and_not_compiled(saved, tmp_path, monkeypatch, amp, device, bf16):
    monkeypatch.setattr(checkpoint.CellRCNN, "to", lambda self, *_, **__: self)  # works without such a device too
    monkeypatch.setattr(model_module, "computes_in_bf16", lambda device: True)
    config = replace(saved.config, train=replace(saved.config.train, amp=amp, compile=True))
    save(replace(saved, config=config), tmp_path / "best.pt")
    model, _ = load_model(tmp_path / "best.pt", device)
    assert (model.bf16, model.rpn.head.bf16, model.roi_heads.bf16) == (bf16, bf16, bf16)
    assert model.backbone._compiled_call_impl is None


def test_pretrained_weights_are_not_fetched_to_be_overwritten(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_args, **_kwargs: pytest.fail("fetched"))
    config = replace(saved.config, model=replace(saved.config.model, weights="imagenet"))
    model = build_model(config.model, pretrained=False)
    save(replace(saved, config=config, model=state_of(model)), tmp_path / "best.pt")
    loaded, _ = load_model(tmp_path / "best.pt")
    assert all(torch.equal(loaded.state_dict()[name], each) for name, each in model.state_dict().items())


def test_a_write_that_fails_half_way_leaves_the_old_file_alone(saved, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save(saved, path)
    before = path.read_bytes()

    def full_disk(_content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save(replace(saved, epoch=4), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_that_torch_hides_is_told(saved, tmp_path, monkeypatch):
    def hidden(content, file):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 57024 vs 56920")  # noqa: B904

    monkeypatch.setattr(checkpoint.torch, "save", hidden)
    with pytest.raises(OSError, match="No space left") as caught:
        save(saved, tmp_path / "last.pt")
    assert caught.value.filename == str(tmp_path / "last.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lost", ["model", "plan"])
def test_a_checkpoint_that_lacks_a_part_is_one_line(saved, tmp_path, lost):
    save(saved, tmp_path / "best.pt")
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    del content[lost]
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=f"expected all of a checkpoint, found none of its {lost}"):
        load(tmp_path / "best.pt")


def test_tensors_of_another_network_are_one_line(saved, tmp_path):
    tensors = dict(list(saved.model.items())[1:])
    save(replace(saved, model=tensors), tmp_path / "best.pt")
    with pytest.raises(ValueError, match="expected the tensors of its config's network, found others"):
        load_model(tmp_path / "best.pt")


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    torch.save({"format": 1, "model": {}, "config": Harmful(tmp_path / "harm")}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="expected tensors and plain values") as caught:
        load(tmp_path / "best.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_off_file_is_refused_in_one_line(saved, tmp_path, share):
    path = tmp_path / "best.pt"
    save(saved, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ValueError, match=r"best\.pt: expected tensors and plain values in a file of torch.save, found a"
    ) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    monkeypatch.setattr(checkpoint, "NEEDS", "12.3.0")
    save(saved, tmp_path / "best.pt")
    monkeypatch.undo()
    newer, known = checkpoint.FORMAT + 1, checkpoint.FORMAT
    says = (
        rf"best\.pt: checkpoint format {newer}, this version reads up to {known}; update cellseg to 12\.3\.0 or later"
    )
    with pytest.raises(ValueError, match=says) as refused:
        load(tmp_path / "best.pt")
    assert "\n" not in str(refused.value)


def test_a_newer_format_that_does_not_say_what_it_needs_is_refused(saved, tmp_path):
    torch.save({"format": checkpoint.FORMAT + 1}, tmp_path / "best.pt")
    with pytest.raises(ValueError, match="update cellseg to its newest version or later"):
        load(tmp_path / "best.pt")


@pytest.mark.parametrize("content", [{"model": {}}, [1]])
def test_another_file_of_torch_save_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="expected a cellseg checkpoint, found another file"):
        load(tmp_path / "other.pt")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best\.pt: no such checkpoint; expected a best\.pt or last\.pt"):
        load(tmp_path / "best.pt")


def test_several_checkpoints_are_an_ensemble_of_their_networks_and_zooms(saved, tmp_path):
    other = replace(saved.config, predict=replace(saved.config.predict, zoom=2.0))
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    save(saved, paths[0])
    save(replace(saved, config=other, epoch=9), paths[1])
    ensemble, first = load_ensemble(paths)
    assert first.epoch == 3
    assert len(ensemble.networks) == 2
    assert [point.zoom for point in ensemble.points] == [1, 2]


@pytest.mark.parametrize(("scales", "zooms"), [((0.25, 0.5), [1, 1]), ((0.5, 0.25), [1, 4]), ((None, 0.5), [1, 2])])
def test_each_network_of_an_ensemble_sees_cells_at_the_scale_of_its_own_training(saved, tmp_path, scales, zooms):
    """The second was trained at twice the zoom; at half a micron per pixel that makes a pixel of a quarter micron."""
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    other = replace(saved.config, predict=replace(saved.config.predict, zoom=2.0))
    for path, config, mpp in zip(paths, (saved.config, other), scales, strict=True):
        save(replace(saved, config=config, plan=replace(saved.plan, mpp=mpp)), path)
    ensemble, first = load_ensemble(paths)
    assert [point.zoom for point in ensemble.points] == zooms
    members = ensemble.members(replace(first.config.predict, zoom=3.0), (50, 66))
    assert [member.view.zoom for member in members] == zooms  # of tiles at the first's zoom, whatever that is


def test_checkpoints_of_other_classes_or_colours_are_not_put_together(saved, tmp_path):
    gray = replace(saved.config, dataset=replace(saved.config.dataset, color="gray"))
    save(saved, tmp_path / "a.pt")
    save(replace(saved, plan=replace(PLAN, class_names=("flat", "round", "long", "odd"))), tmp_path / "names.pt")
    save(replace(saved, config=gray), tmp_path / "gray.pt")
    for name, message in (("names.pt", r"classes \('round', .* found \('flat'"), ("gray.pt", r".*color rgb, .* gray")):
        with pytest.raises(ValueError, match=rf"{name}: expected {message}") as caught:
            load_ensemble([tmp_path / "a.pt", tmp_path / name])
        assert "\n" not in str(caught.value)
