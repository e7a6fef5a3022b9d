"""Optimiser, learning rate and weight averaging of a training."""

import math

import torch
from torch import nn

from cellseg.config import TrainConfig


def optimizer_of(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay falls on tensors of two dimensions or more, not on biases and norms."""
    trained = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(groups, config.learning_rate, fused=True)


def rate_factor(step: int, total: int, warmup_fraction: float) -> float:
    """Share of the peak learning rate at a step, 0..total-1: a linear rise, then a cosine to 0."""
    warmup = round(total * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def average_decay(step: int, decay: float) -> float:
    """Decay of the averaged weights after a number of steps, ramped so that the random start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged network's weights and statistics towards the model's: decay x old + (1 - decay) x new."""
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(means, values, 1 - decay)  # one call for hundreds of tensors
    for count, value in pairs:
        if not count.is_floating_point():
            count.copy_(value)
