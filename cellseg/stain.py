"""How much light a stain absorbs, per channel: what tells red from blue, and one slide's stain from another's.

Letters: H height, W width.
"""

from collections.abc import Sequence

import numpy as np

from cellseg.codes import Array

DENSITIES = -np.log((np.arange(256) + 1) / 256)
"""optical density, natural logarithm, of each value of a uint8 channel: 0 for white"""
TISSUE = 0.15
"""mean optical density over which a pixel is tissue"""
CLEAR = 0.02
"""differences of optical density up to this one tell nothing"""

HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
"""optical densities of red, green and blue, of length 1: Ruifrok and Johnston 2001"""


def density(image: Array, mask: Array) -> Array:
    """Mean optical density (3,) of the pixels of an image (H, W, 3) uint8 in a mask (H, W) bool that is not empty."""
    counts = [np.bincount(channel, minlength=256) for channel in image[mask].T]
    mean: Array = np.stack(counts) @ DENSITIES / mask.sum()
    return mean


def tissue_density(image: Array) -> Array:
    """Mean optical density (3,) of the tissue of an image (H, W, 3) uint8; of the whole image where none is seen."""
    tissue = DENSITIES[image].mean(axis=2) > TISSUE
    return density(image, tissue if tissue.any() else np.ones_like(tissue))


def red_over_blue(image: Array, nuclei: Array) -> float | None:
    """By how much the first channel tells nuclei (H, W) bool from the rest better than the third, in optical density.

    None where the image does not say: no nuclei, nothing but nuclei, nuclei that shine (fluorescence), or gray.
    """
    if not nuclei.any() or nuclei.all():
        return None
    red, _, blue = density(image, nuclei) - density(image, ~nuclei)
    return float(red - blue) if red + blue > 0 and abs(red - blue) > CLEAR else None


def channel_order(differences: Sequence[float | None]) -> tuple[str, str]:
    """The files' order, "rgb" or "bgr", that their images' red_over_blue tells, and a sentence that says why.

    Haematoxylin absorbs red more than blue. Immunostains in brown (DAB) do not: for them the order must be given.
    """
    known = [difference for difference in differences if difference is not None]
    if not known:
        return "rgb", f"rgb: none of {len(differences)} images tells red from blue in its nuclei"
    median = float(np.median(known))
    order, more, less = ("bgr", "third", "first") if median < 0 else ("rgb", "first", "third")
    agreeing = sum((difference < 0) == (median < 0) for difference in known)
    return order, (
        f"{order}: nuclei stand out more in the {more} channel than in the {less}, by {abs(median):.2f} in optical "
        f"density (median), in {agreeing} of {len(known)} images that tell; haematoxylin absorbs red more than blue"
    )


def unmixed(densities: Array) -> Array:
    """How much haematoxylin and eosin (N, 2) there is in optical densities (N, 3), in their unit.

    What neither explains is the third part, across both.
    """
    stains = np.array([HAEMATOXYLIN, EOSIN])
    stains = np.stack([*stains, np.cross(*stains)])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    amounts: Array = np.linalg.solve(stains.T, densities.T).T[:, :2]
    return amounts
