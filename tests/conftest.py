"""A data set and a network so small that a training takes seconds."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cellseg.openmp  # noqa: F401  before torch
from cellseg.run_store import opened

import numpy as np
import pytest
import torch
from mlflow_server import serving, wait_for
from squares import PINK, PURPLE, squares, write_squares

from cellseg.config import AugmentConfig, DatasetConfig, ModelConfig, PredictConfig, RunConfig, TrainConfig
from cellseg.dataset import DataSet, open_dataset
from cellseg.experiment import Prepared, prepare
from cellseg.label_maps import Target, target

PLAIN = AugmentConfig(
    crop=0, zoom_jitter=1.0, flips=False, turns=False, color_jitter=0.0, stain_jitter=0.0, blur=0.0, noise=0.0
)


@pytest.fixture(scope="session")
def plain() -> AugmentConfig:
    """Views that show the whole image as it is."""
    return PLAIN


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training images of 72 x 80 pixels with 8 square cells each; classes 1 and 2 in all, 3 and 4 in one."""
    return write_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="session")
def data(folder: Path) -> DataSet:
    """The four images."""
    return open_dataset(folder, DatasetConfig())


@pytest.fixture(scope="session")
def micro() -> ModelConfig:
    """A network of 0.8 M parameters on strides 4 and 8."""
    return ModelConfig(
        backbone="resnet18",
        stages=2,
        weights="none",
        extra_level=False,
        fpn_channels=16,
        box_head=16,
        mask_channels=(8,),
        anchor_sizes=(8.0, 16.0),
        aspect_ratios=(1.0,),
        rpn_pre_nms=60,
        rpn_post_nms=40,
        rpn_batch=32,
        roi_batch=16,
        roi_positive_fraction=0.5,
    )


@pytest.fixture(scope="session")
def prepared(folder: Path, run_config: RunConfig) -> Prepared:
    """The four images and the micro network with three levels and fitted anchors, as a study has them."""
    model = replace(run_config.model, stages=3, anchor_sizes=None, aspect_ratios=None, sizes_per_level=2)
    return prepare(replace(run_config, model=model), folder)


@pytest.fixture(scope="session")
def run_config(micro: ModelConfig) -> RunConfig:
    """Two epochs of two steps on crops of 64 pixels."""
    return RunConfig(
        recipe="demo",
        device="cpu",
        dataset=DatasetConfig(workers=0),
        augment=AugmentConfig(crop=64, color_jitter=0.0, stain_jitter=0.0, blur=0.0, noise=0.0),
        model=micro,
        train=TrainConfig(learning_rate=1e-3, epochs=2, steps_per_epoch=2, batch=1),
        predict=PredictConfig(zoom=1.0, tile=128, overlap=32, proposals=30, detections=10),
    )


@pytest.fixture
def batch_of_two() -> tuple[list[torch.Tensor], list[Target]]:
    """Two images (3, 72, 80) uint8 and their Targets: squares, with all four classes in the second."""
    maps = [squares(number) for number in (0, 3)]
    pixels = [np.where(each.any(axis=0)[:, :, None], PURPLE, PINK).astype(np.uint8).transpose(2, 0, 1) for each in maps]
    return [torch.from_numpy(np.ascontiguousarray(each)) for each in pixels], [target(each) for each in maps]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an MLflow store without runs; making one takes longer than a training."""
    place = tmp_path_factory.mktemp("store")
    opened(place)
    return place / "mlflow.db"


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to the store in a test's own folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def booting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and folder of an MLflow server that comes up meanwhile."""
    folder = tmp_path_factory.mktemp("server")
    store = ("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept"))
    with serving(folder, folder / "log", *store) as url:
        yield url, folder


@pytest.fixture
def server(booting_server: tuple[str, Path]) -> tuple[str, Path]:
    """Address and folder of an MLflow server that answers."""
    url, folder = booting_server
    wait_for(url, folder / "log")
    return url, folder
