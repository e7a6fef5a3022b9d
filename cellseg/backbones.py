"""Backbones with a feature pyramid, each as a module with `body`, `fpn` and `out_channels`.

A new backbone is a new branch of `_body` and a name in config.Backbone.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models import convnext, resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cellseg.config import ModelConfig

Norm = Callable[[int], nn.Module]
RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
CONVNEXT_STAGES = ("1", "3", "5", "7")
FIRST_COCO = ("coco", "resnet50")
CONVNEXT_CHANNELS = {"tiny": 96, "small": 96, "base": 128}


class FpnBackbone(nn.Module):
    """Feature maps of an image at strides 4, 8, 16, …, named "0", "1", …, and "pool" for the extra level."""

    def __init__(self, body: nn.Module, fpn: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of images (B, 3, H, W)."""
        features: dict[str, Tensor] = self.fpn(self.body(images))
        return features


def build_backbone(config: ModelConfig) -> FpnBackbone:
    """The backbone of a config, randomly initialised, with the stages that are not trained frozen."""
    if not 1 <= config.stages <= 4:
        raise ValueError(f"model.stages: expected 1..4, got {config.stages}")
    body, names, channels = _body(config)
    _freeze(body, names, config)
    used = {name: str(level) for level, name in enumerate(names[: config.stages])}
    fpn = FeaturePyramidNetwork(
        channels[: config.stages],
        config.fpn_channels,
        extra_blocks=LastLevelMaxPool() if config.extra_level else None,
        norm_layer=nn.BatchNorm2d if config.backbone == "resnet50_v2" else None,
    )
    return FpnBackbone(IntermediateLayerGetter(body, used), fpn, config.fpn_channels)


def _body(config: ModelConfig) -> tuple[nn.Module, tuple[str, ...], list[int]]:
    """The classifier whose stages are used, the names of its stages, and their channels."""
    family, _, size = config.backbone.partition("_")
    if family == "convnext":
        first = CONVNEXT_CHANNELS[size]
        network = getattr(convnext, config.backbone)(weights=None)
        return network.features, CONVNEXT_STAGES, [first * 2**stage for stage in range(4)]
    network = getattr(resnet, family)(weights=None, norm_layer=_norm(config))
    first = network.inplanes // 8
    return network, RESNET_STAGES, [first * 2**stage for stage in range(4)]


def norm_of(config: ModelConfig) -> str:
    """The normalisation that a config asks for, with auto resolved."""
    if config.norm != "auto":
        return config.norm
    return "batch" if config.weights == "none" else "frozen"


def _norm(config: ModelConfig) -> Norm:
    norms: dict[str, Norm] = {
        "batch": nn.BatchNorm2d,
        # torchvision runs the first COCO weights without the epsilon, as they were trained
        "frozen": partial(FrozenBatchNorm2d, eps=0.0 if (config.weights, config.backbone) == FIRST_COCO else 1e-5),
        "group": partial(nn.GroupNorm, 32),
    }
    return norms[norm_of(config)]


def _freeze(body: nn.Module, stages: tuple[str, ...], config: ModelConfig) -> None:
    """Freeze what lies before the last `trainable_stages`; without weights there is nothing worth freezing."""
    if config.weights == "none" or config.trainable_stages >= 5:
        return
    trained = stages[len(stages) - config.trainable_stages :]
    downsampling = {str(int(stage) - 1) for stage in trained if stage.isdigit()} - {"0"}  # ConvNeXt's; 0 is the stem
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in {*trained, *downsampling})
