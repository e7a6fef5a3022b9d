"""Try a backbone before it becomes a branch of `backbones._body`: its levels, size, speed, and whether it learns.

python examples/backbone.py DATA [STEPS]
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torchvision.models import mobilenet_v3_large
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork

from cellseg.backbones import FpnBackbone
from cellseg.config_fields import replaced
from cellseg.experiment import Prepared, prepare
from cellseg.loader import training_loader
from cellseg.model import CellRCNN, build_model, trainable_parameters
from cellseg.recipes import demo

STAGES = {"3": "0", "6": "1", "12": "2", "16": "3"}
"""of MobileNetV3's features: the last layers at strides 4, 8, 16 and 32, and the levels that they become"""
CHANNELS = (24, 40, 112, 960)


def mobilenet(levels: int, out_channels: int) -> FpnBackbone:
    """MobileNetV3 with a feature pyramid, as the network wants it."""
    body = IntermediateLayerGetter(mobilenet_v3_large(weights=None).features, dict(list(STAGES.items())[:levels]))
    return FpnBackbone(body, FeaturePyramidNetwork(list(CHANNELS[:levels]), out_channels), out_channels)


def main(data: Path, steps: int = 20) -> None:
    """Compare it with the recipe's own on the same views."""
    prepared = prepare(replaced(demo(), {"train.steps_per_epoch": steps}), data)
    config = prepared.config.model
    for name in (config.backbone, "mobilenet_v3"):
        torch.manual_seed(0)
        model = build_model(config)
        if name != config.backbone:
            model.backbone = mobilenet(config.stages, config.fpn_channels)
        shapes = [tuple(each.shape[1:]) for each in model.backbone(torch.zeros(1, 3, 128, 128)).values()]
        print(f"{name}: {trainable_parameters(model) / 1e6:.1f} M parameters, levels of 128 px {shapes}")
        losses, seconds = trained(model, prepared)
        print(f"  loss {losses[0]:.2f} -> {losses[-1]:.2f} in {len(losses)} steps, {seconds / len(losses):.2f} s each")


def trained(model: CellRCNN, prepared: Prepared) -> tuple[list[float], float]:
    """The losses of plain steps on the training views, and the seconds that they took."""
    config = prepared.config
    optimizer = torch.optim.AdamW(model.parameters(), config.train.learning_rate)
    losses = []
    started = time.perf_counter()
    for batch in training_loader(prepared.data, prepared.train, np.ones(len(prepared.train)), config):
        loss = torch.stack(list(model(batch.images, batch.targets, batch.seeds).values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, time.perf_counter() - started


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
