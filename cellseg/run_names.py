"""Names by which a person tells runs apart in a list, such as `trial-007 · a8×2.1 · lr 3e-3`."""

from collections.abc import Sequence

from cellseg.config import RunConfig


def run_name(stage: str, config: RunConfig) -> str:
    """The stage, the anchors unless they are still open, and the learning rate.

    Anchors are told in image pixels, or in network pixels where images are scaled to a short side.
    """
    sizes, zoom = config.model.anchor_sizes, 1.0 if config.predict.short_side else config.predict.zoom
    anchors = [short_anchors(sizes, zoom)] if sizes and zoom else []
    return " · ".join([stage, *anchors, f"lr {short_rate(config.train.learning_rate)}"])


def title(config: RunConfig) -> str:
    """What trainings with other seeds or of other recipes are told apart by, such as `demo resnet18 seed 0`."""
    return f"{config.recipe} {config.model.backbone} seed {config.seed}"


def short_anchors(sizes: Sequence[float], zoom: float) -> str:
    """The least size in image pixels and the mean factor from one size to the next.

    >>> short_anchors((12, 24, 48), zoom=1.5)
    'a8×2'
    >>> short_anchors((11.21, 15.7, 21.98), zoom=1)
    'a11.2×1.4'
    >>> short_anchors((32,), zoom=1)
    'a32'
    """
    least = f"a{min(sizes) / zoom:.3g}"
    if len(sizes) == 1:
        return least
    return f"{least}×{(max(sizes) / min(sizes)) ** (1 / (len(sizes) - 1)):.2g}"


def short_rate(rate: float) -> str:
    """At most two digits and a power of ten.

    >>> short_rate(0.003), short_rate(2.17e-4), short_rate(9.96e-5)
    ('3e-3', '2.2e-4', '1e-4')
    """
    digits, power = f"{rate:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"
