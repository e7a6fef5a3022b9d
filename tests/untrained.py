"""A network that nobody has trained, which finds cells in noise."""

from dataclasses import replace

import torch

from cellseg.checkpoint import Checkpoint, save
from cellseg.config import PredictConfig
from cellseg.fingerprint import Plan
from cellseg.model import build_model, state_of


def save_untrained(path, run_config):
    """Write its checkpoint, the same each time."""
    torch.manual_seed(0)
    predicted = PredictConfig(zoom=1.0, tile=64, overlap=32, proposals=20, score_threshold=0.0, pq_threshold=0.0)
    plan = Plan("d1gest", ("a", "b", "c", "d"), "rgb", 1.0, 64, (8.0, 16.0), (1.0,), 10, 10.0, 8)
    state = state_of(build_model(run_config.model))
    config = replace(run_config, predict=replace(predicted, detections=10))
    save(Checkpoint(state, config, plan, "abc123", 1, {}, {}), path)
