"""Which images are held back for validation: whole groups, with every class on both sides where it can be.

Letters: N images, G groups, C classes, K folds.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.cluster.vq import kmeans, vq, whiten

from cellseg.codes import Array
from cellseg.config import DatasetConfig
from cellseg.dataset import DataSet
from cellseg.stain import tissue_density

log = logging.getLogger(__name__)
DRAWS = 400
"""random orders of the groups that are tried"""
FEWEST_CLUSTERED = 10
"""images; fewer are not clustered by stain"""
STARTS = 50
"""of k-means, of which the best is taken; a single one depends on luck"""
FAINT = 0.05
"""optical density that is added before the logarithm, for white images"""


def held_back(dataset: DataSet, config: DatasetConfig) -> tuple[list[int], list[int]]:
    """Indices for training and for validation, both ascending: those of a fold, or of a share of the images."""
    if not config.folds:
        return split(dataset, config.validation_fraction, config.split_seed, config.grouped_split)
    fold_of = folds(dataset, config.folds, config.split_seed, config.grouped_split)
    held = fold_of == config.fold
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def split(dataset: DataSet, fraction: float, seed: int, grouped: bool) -> tuple[list[int], list[int]]:
    """Indices for training and for validation, both ascending; the same for the same seed.

    Validation gets close to fraction of the images and of the cells of each class. With fraction 0, or one image, all
    are for training, and so they are, with a warning, where no image to hold back has a cell; else neither side is
    empty. Raises ValueError for a fraction outside 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"validation fraction: expected 0 <= fraction < 1, got {fraction}")
    everything = list(range(len(dataset)))
    if fraction == 0 or len(dataset) < 2:
        return everything, []
    groups = groups_of(dataset) if grouped else np.arange(len(dataset))
    held = choose(groups, dataset.cell_counts, fraction, seed)
    if not dataset.cell_counts[held].any():
        log.warning(
            "%s: no cell in the images to hold back; all are trained on, and no network is judged", dataset.root
        )
        return everything, []
    return [k for k in everything if not held[k]], [k for k in everything if held[k]]


def folds(dataset: DataSet, count: int, seed: int, grouped: bool) -> Array:
    """The fold (N,) of each image, 0 to count - 1, none empty; the same for the same seed.

    Raises ValueError where there are fewer groups than folds.
    """
    groups = groups_of(dataset) if grouped else np.arange(len(dataset))
    found = len(np.unique(groups))
    if found < count:
        kind = "groups of images that belong together" if grouped else "images"
        raise ValueError(
            f"{dataset.root}: expected at least as many {kind} as the {count} folds, found {found}; ask for fewer folds"
        )
    return dealt(groups, dataset.cell_counts, count, seed)


def groups_of(dataset: DataSet) -> Array:
    """The group (N,) of each image, from 0: by source where sources tell images apart, else by stain, else its own."""
    sources = [record.source for record in dataset.records]
    if all(sources) and len(set(sources)) > 1:
        return np.unique(sources, return_inverse=True)[1]
    if len(dataset) >= FEWEST_CLUSTERED:
        stained = dataset if dataset.color == "rgb" else replace(dataset, color="rgb", kept={})
        clusters = stain_clusters([tissue_density(stained.image(k)) for k in range(len(dataset))])
        if len(np.unique(clusters)) > 1:
            return clusters
    return np.arange(len(dataset))


def stain_clusters(densities: Sequence[Array]) -> Array:
    """A cluster (N,) for each image of like tissue_density (3,): sqrt(2 N) of them, but 2 to 12."""
    features = np.log(np.stack(densities) + FAINT)  # twice the dye is the same step, weak or strong
    features = features[:, features.std(axis=0) > 1e-6]  # what is the same everywhere cannot be scaled
    if not features.shape[1]:
        return np.zeros(len(densities), np.int64)
    scaled = whiten(features)
    count = int(np.clip(round(np.sqrt(2 * len(scaled))), 2, 12))
    centres, _ = kmeans(scaled, count, iter=STARTS, rng=np.random.default_rng(0))
    clusters: Array = vq(scaled, centres)[0]
    return clusters


def choose(groups: Array, cell_counts: Array, fraction: float, seed: int) -> Array:
    """Which images (N,) bool are held back, in whole groups (N,), given their cells per class (N, C).

    Of DRAWS random orders of the groups and every cut of each, the best: the smallest sum of the deviations from
    fraction, of the images and of each class's cells, and of 1 for each class that a side lacks though two groups
    have it.
    """
    per_group, members = _amounts(groups, cell_counts)
    total = per_group.sum(axis=0)
    shared = (per_group > 0).sum(axis=0) > 1
    rng = np.random.default_rng(seed)
    best, held = np.inf, np.zeros(len(per_group), bool)
    for _ in range(DRAWS):
        order = rng.permutation(len(per_group))
        sums = np.cumsum(per_group[order], axis=0)[:-1]  # (G - 1, 1 + C): neither side is empty
        one_sided = (shared & ((sums == 0) | (sums == total))).sum(axis=1)
        costs = np.abs(sums / total - fraction).sum(axis=1) + one_sided
        cut = int(np.argmin(costs))
        if costs[cut] < best:
            best = costs[cut]
            held = np.isin(np.arange(len(per_group)), order[: cut + 1])
    kept: Array = held[members]
    return kept


def dealt(groups: Array, cell_counts: Array, count: int, seed: int) -> Array:
    """The fold (N,) of each image, in whole groups (N,), given their cells per class (N, C); none is empty.

    In each of DRAWS random orders, a group goes to the fold that has least of what it brings. The best is kept: the
    smallest sum of the deviations from 1 / K, of the images and of each class's cells in each fold, and of 1 for each
    class that a fold lacks though two groups have it.
    """
    per_group, members = _amounts(groups, cell_counts)
    shares = per_group / per_group.sum(axis=0)  # (G, 1 + C)
    shared = (per_group > 0).sum(axis=0) > 1
    rng = np.random.default_rng(seed)
    best, kept = np.inf, np.zeros(len(shares), np.int64)
    for _ in range(DRAWS):
        fold_of, sums = np.zeros(len(shares), np.int64), np.zeros((count, shares.shape[1]))
        for group in rng.permutation(len(shares)):
            fold = int(np.argmin(sums @ shares[group]))  # 0 for an empty one alone: every group has images
            fold_of[group] = fold
            sums[fold] += shares[group]
        cost = np.abs(sums - 1 / count).sum() + (shared & (sums == 0)).sum()
        if cost < best:
            best, kept = cost, fold_of
    fold_of_image: Array = kept[members]
    return fold_of_image


def _amounts(groups: Array, cell_counts: Array) -> tuple[Array, Array]:
    """Images and cells of each class that occurs, per group (G, 1 + C); the group of each image (N,), 0 to G - 1."""
    names, members = np.unique(groups, return_inverse=True)
    amounts = np.column_stack([np.ones(len(groups)), cell_counts])
    per_group = np.zeros((len(names), amounts.shape[1]))
    np.add.at(per_group, members, amounts)
    return per_group[:, per_group.any(axis=0)], members
