"""`cellseg.load` and what it returns, on a network that finds cells in noise."""

import logging
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

import cellseg
from cellseg import slides
from cellseg.calibration import calibrated
from cellseg.checkpoint import Checkpoint, load, load_model, save
from cellseg.config import PredictConfig
from cellseg.fingerprint import Plan
from cellseg.images import read_image
from cellseg.model import build_model, state_of
from cellseg.overlaps import settled
from cellseg.predict import predict


@pytest.fixture(scope="module")
def place(tmp_path_factory, run_config):
    """A folder with a network, trained at half a micron per pixel, and an image of noise."""
    folder = tmp_path_factory.mktemp("predictor")
    torch.manual_seed(0)
    point = PredictConfig(zoom=1.0, tile=64, overlap=32, proposals=20, score_threshold=0.0, pq_threshold=0.0)
    plan = Plan("d1gest", ("a", "b", "c", "d"), "rgb", 1.0, 64, (8.0, 16.0), (1.0,), 10, 10.0, 8, mpp=0.5)
    config = replace(run_config, predict=replace(point, detections=10))
    save(Checkpoint(state_of(build_model(run_config.model)), config, plan, "abc", 1, {}, {}), folder / "best.pt")
    noise = np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)
    tifffile.imwrite(folder / "noise.tif", noise, photometric="rgb", rowsperstrip=16, compression="zlib")
    return folder


@pytest.fixture
def model(place):
    return cellseg.load(place / "best.pt", device="cpu")


def test_cells_are_the_settled_results_of_predict(model, place):
    cells = model.predict(place / "noise.tif")
    network, checkpoint = load_model(place / "best.pt")
    point = checkpoint.config.predict
    results = settled(predict(network, [(1, read_image(place / "noise.tif"))], point), point)
    assert len(cells) == len(results) > 3
    assert list(cells.codes) == [each["segmentation"] for each in results]
    assert cells.labels.tolist() == [each["category_id"] for each in results]
    label_map = cells.to_label_map()
    assert label_map.shape == (90, 100)
    assert np.unique(label_map).tolist() == list(range(len(cells) + 1))


def test_an_array_is_the_same_image_as_its_file(model, place):
    cells = model.predict(str(place / "noise.tif"))
    pixels = read_image(place / "noise.tif")
    for same in (pixels, np.dstack([pixels, np.full((90, 100), 255, np.uint8)])):  # with alpha
        assert model.predict(same).codes == cells.codes
    assert model.predict(pixels[:, :, ::-1], channel_order="bgr").codes == cells.codes


def test_a_gray_array_has_its_brightness_three_times(model):
    gray = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    assert model.predict(gray).codes == model.predict(np.dstack([gray] * 3)).codes


def test_a_large_file_is_read_in_parts_and_gives_the_same_cells(model, place, monkeypatch):
    whole = model.predict(place / "noise.tif")
    monkeypatch.setattr(slides, "LARGE", 0)
    assert model.predict(place / "noise.tif").codes == whole.codes


def test_an_image_of_half_the_resolution_is_seen_at_twice_the_zoom(model, place, monkeypatch, caplog):
    seen = []
    monkeypatch.setattr("cellseg.predictor.detect", lambda network, image, config: iter(seen.append(config) or ()))
    caplog.set_level(logging.WARNING)
    model.predict(place / "noise.tif", mpp=1.0)
    model.predict(place / "noise.tif", mpp=0.5)
    model.predict(place / "noise.tif")
    assert [each.zoom for each in seen] == [2.0, 1.0, 1.0]
    assert "noise.tif" in caplog.text


def test_scores_are_calibrated_by_sizes_at_the_scale_of_the_training(model, place, monkeypatch):
    """Squares of 20 pixels at half a micron each are cells that are 10 pixels wide at one micron."""
    rows = ((1.0, 30.0, -5.0, -44.0),) * 4
    seen = []
    monkeypatch.setattr("cellseg.predictor.detect", lambda network, image, config: iter(seen.append(config) or ()))
    for point in (model.config, replace(model.config, short_side=90)):
        learnt = replace(model, config=replace(point, calibration=rows))
        for mpp, side in ((0.5, 20.0), (1.0, 10.0), (0.25, 40.0)):
            learnt.predict(place / "noise.tif", mpp=mpp)
            square, label = torch.tensor([[0.0, 0.0, side, side]]), torch.tensor([1])
            score = calibrated(torch.tensor([0.6]), square, label, seen[-1].calibration)
            expected = calibrated(torch.tensor([0.6]), torch.tensor([[0.0, 0.0, 20.0, 20.0]]), label, rows)
            assert score.item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_share_that_is_done_is_told(model, place):
    said = []
    model.cells(read_image(place / "noise.tif"), None, "noise", said.append)
    assert said[-1] == 1.0
    assert said == sorted(said)
    assert len(said) > 1


@pytest.mark.parametrize("shape", [(5,), (2, 5, 5, 3), (8, 8, 2), (0, 5, 3)])
def test_what_is_no_image_is_refused(model, shape):
    with pytest.raises(ValueError, match="image: expected a tif, png or jpg of 1, 3 or 4 channels"):
        model.predict(np.zeros(shape, np.uint8))


def test_other_names_for_the_classes(model, place):
    named = model.renamed(["epithelial", "lymphocyte", "neutrophil", "macrophage"])
    assert set(named.predict(place / "noise.tif").of_classes()) == {
        "epithelial",
        "lymphocyte",
        "neutrophil",
        "macrophage",
    }
    with pytest.raises(ValueError, match="--classes: expected 4 names, for a, b, c, d, got 1: x"):
        model.renamed(["x"])


def test_several_checkpoints_predict_together(model, place):
    pair = cellseg.load(place / "best.pt", place / "best.pt", device="cpu")
    assert len(pair.ensemble.networks) == 2
    assert pair.digest != model.digest


def test_a_calibration_of_single_networks_is_warned_of_where_several_predict(place, tmp_path, caplog):
    saved = load(place / "best.pt")
    point = replace(saved.config.predict, calibration=((0.5, 0.1, -0.1, 0.0),) * 4)
    save(replace(saved, config=replace(saved.config, predict=point)), tmp_path / "best.pt")
    cellseg.load(tmp_path / "best.pt", device="cpu")
    assert not caplog.text
    cellseg.load(tmp_path / "best.pt", place / "best.pt", device="cpu")
    assert "calibration and pq threshold were fitted to single networks" in caplog.text


def test_an_address_in_mlflow_is_asked_for_there(place, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cellseg.predictor.model_file", lambda uri, root: asked.append(uri) or nullcontext(place / "best.pt")
    )
    assert cellseg.load("models:/cellseg@best", device="cpu").class_names == ("a", "b", "c", "d")
    assert asked == ["models:/cellseg@best"]


def test_a_missing_checkpoint_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint; expected a best\.pt"):
        cellseg.load(tmp_path / "nothing.pt", device="cpu")
