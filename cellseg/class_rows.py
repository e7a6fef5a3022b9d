"""The rows of a network's heads that belong to its classes: a network of other classes takes over those that it shares.

Letters: C classes of a file, K of a network; row 0 of most tensors is the background's.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

GENERIC = re.compile(r"class[1-9][0-9]*")
"""a name that tells a position and no class"""
PER_CLASS = re.compile(r"roi_heads\..*\b(cls_score|bbox_pred|mask_fcn_logits|mask_quality\.output)\.(weight|bias)")
"""tensors with rows for each class; those of the other heads and of the RPN are for all classes alike"""


def shared_labels(before: Sequence[str], now: Sequence[str]) -> dict[int, int]:
    """Label 1..C in a file of each label 1..K of a network that the file knows, by name.

    `class1`, `class2`, … are matched where all names are such.

    >>> shared_labels(("epithelial", "lymphocyte"), ("lymphocyte", "mitosis"))
    {1: 2}
    """
    generic = all(GENERIC.fullmatch(name) for name in (*before, *now))
    known = {name: label for label, name in enumerate(before, 1) if generic or not GENERIC.fullmatch(name)}
    return {label: known[name] for label, name in enumerate(now, 1) if name in known}


def with_classes(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], before: Sequence[str], now: Sequence[str]
) -> dict[str, Tensor]:
    """The state of a file with the classes `before`, as a network with the classes `now` and the state `own` takes it.

    Rows of classes that are not shared are the network's own. Tensors of other shapes stay as the file has them.
    """
    labels = shared_labels(before, now)
    return {
        name: _rows(name, value, own[name], labels, len(before), len(now))
        if name in own and PER_CLASS.fullmatch(name)
        else value
        for name, value in state.items()
    }


def _rows(name: str, value: Tensor, own: Tensor, labels: Mapping[int, int], before: int, now: int) -> Tensor:
    """Rows of the network's labels from the file's, the others from its own."""
    first = 1 if "mask_quality" in name else 0  # has no background
    each = 4 if "bbox_pred" in name else 1
    rows = [each * (count + 1 - first) for count in (before, now)]
    if [len(value), len(own)] != rows or value.shape[1:] != own.shape[1:]:
        return value
    taken = own.clone()
    for label, known in {0: 0, **labels}.items():
        if label >= first:
            taken[each * (label - first) :][:each] = value[each * (known - first) :][:each]
    return taken
