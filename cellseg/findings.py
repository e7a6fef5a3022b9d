"""A Survey -> what is wrong with a data set, or will bite whoever trains on it: one line each, with what to do.

Letters: N images, C classes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cellseg.ceiling import ap_ceiling, of_all_classes, of_each_class
from cellseg.codes import Array
from cellseg.config import PredictConfig
from cellseg.evaluate import CAP
from cellseg.splits import groups_of
from cellseg.survey import Survey
from cellseg.tiles import tiles
from cellseg.wording import several

Kind = Literal["broken", "duplicates", "blank", "empty", "rare", "overlaps", "small", "caps"]
FEWEST = 10
"""cells of a class: fewer teach little, and what is measured on them says little"""
SHOWN = 3
"""names that a line holds"""


@dataclass(frozen=True)
class Finding:
    """One warning."""

    kind: Kind
    text: str
    """what was found, and what to do"""
    names: tuple[str, ...] = ()
    """all images or classes that it is about"""


def findings(seen: Survey, predict: PredictConfig, minimum_area: int) -> list[Finding]:
    """The warnings, the worst first, for a training with that minimum area and a Plan that is applied to `predict`."""
    return [
        *(Finding("broken", message) for message in seen.broken),
        *_leaks(seen),
        *_duplicates(seen),
        *_blank(seen),
        *_empty(seen),
        *_rare(seen),
        *_overlaps(seen),
        *_small(seen, minimum_area),
        *_capped_scores(seen.annotated, seen.found.names),
        *_capped_tiles(seen, predict),
    ]


def _leaks(seen: Survey) -> Iterator[Finding]:
    tests = {image.digest: image.name for image in seen.tests or ()}
    leaked = {image.name: tests[image.digest] for image in seen.pixels if image.digest in tests}
    if leaked:
        pairs = _some([f"{name} = {test}" for name, test in leaked.items()])
        what = f"{several(len(leaked), 'training image')} with the pixels of a test image: {pairs}"
        yield Finding("duplicates", f"{what}; take out of train/, or test scores are too good", tuple(leaked))


def _duplicates(seen: Survey) -> Iterator[Finding]:
    alike = defaultdict(list)
    for index, image in enumerate(seen.pixels):
        alike[image.digest].append(index)
    twice = [indices for indices in alike.values() if len(indices) > 1]
    if not twice:
        return
    names = [[seen.found.names[index] for index in indices] for indices in twice]
    what = f"the same pixels under several names: {_some([' = '.join(each) for each in names])}"
    groups = groups_of(seen.data)
    if any(len(set(groups[indices].tolist())) > 1 for indices in twice):
        advice = "a split can put one on either side: keep one, or give them one source in manifest.csv"
    else:
        advice = "keep one, or it counts double"
    yield Finding("duplicates", f"{what}; {advice}", tuple(name for each in names for name in each))


def _blank(seen: Survey) -> Iterator[Finding]:
    names = [image.name for image in (*seen.pixels, *(seen.tests or ())) if image.blank]
    yield from _images("blank", names, "of one colour all over", "copy again from the source, or take out")


def _empty(seen: Survey) -> Iterator[Finding]:
    names = [name for name, boxes in zip(seen.found.names, seen.found.boxes, strict=True) if not len(boxes)]
    advice = "fine if there is none to see; else its annotation is missing, and training learns to find nothing"
    yield from _images("empty", names, "without a cell", advice)


def _rare(seen: Survey) -> Iterator[Finding]:
    cells = dict(zip(seen.data.class_names, seen.annotated.sum(axis=0).tolist(), strict=True))
    few = {name: count for name, count in cells.items() if count < FEWEST}
    if few:
        listed = _some([f"{name} has {count or 'none'}" for name, count in few.items()])
        advice = "too few to learn or to measure; annotate more, or merge classes"
        yield Finding("rare", f"fewer than {FEWEST} cells of a class: {listed}; {advice}", tuple(few))


def _overlaps(seen: Survey) -> Iterator[Finding]:
    what = "that lost pixels to a smaller cell of the same class; training sees the rest"
    yield from _cells("overlaps", seen, [cells.hidden for cells in seen.cells], what, "redraw where that is wrong")
    what, advice = "that share pixels with a cell of another class", "if one cell was annotated twice, keep one"
    yield from _cells("overlaps", seen, [cells.shared for cells in seen.cells], what, advice)


def _small(seen: Survey, minimum_area: int) -> Iterator[Finding]:
    small = [int((areas < minimum_area).sum()) for areas in seen.found.areas]
    what = f"of fewer than {minimum_area} pixels (--dataset.minimum-area), not trained on"
    yield from _cells("small", seen, small, what, "remove them, as they count in scores")


def _capped_scores(annotated: Array, names: Sequence[str]) -> Iterator[Finding]:
    """What 100 detections of a class and image leave out, as COCO's AP counts them, and 100 of an image."""
    dense = _named(names, annotated.max(axis=1) > CAP)
    if dense:
        ceiling = np.nanmean(ap_ceiling(of_each_class(annotated), annotated))
        what = f"{len(dense):,} of {several(len(names), 'image')} with more than {CAP} cells of a class"
        why = f"COCO's AP counts {CAP} of them, so that no detector exceeds {ceiling:.3f}"
        yield Finding("caps", f"{what}: {why}; read the uncapped AP of `cellseg score` too", dense)
    dense = _named(names, annotated.sum(axis=1) > CAP)
    if dense:
        ceiling = np.nanmean(ap_ceiling(of_all_classes(annotated), annotated))
        what = f"{len(dense):,} of {several(len(names), 'image')} with more than {CAP} cells"
        why = f"torchvision keeps {CAP} by default, for an AP of {ceiling:.3f} at best"
        yield Finding("caps", f"{what}: {why}; keep more, as the Plan does (--predict.detections)", dense)


def _capped_tiles(seen: Survey, predict: PredictConfig) -> Iterator[Finding]:
    for name, cap in (("detections", predict.detections or 0), ("proposals", predict.proposals)):
        fullest = {
            image: most
            for image, boxes, size_hw in zip(seen.found.names, seen.found.boxes, seen.found.sizes_hw, strict=True)
            if len(boxes) > cap and (most := _fullest_tile(boxes, size_hw, predict)) > cap
        }
        what = f"where a tile holds up to {max(fullest.values(), default=0):,} cells and keeps {cap:,} {name}"
        advice = f"raise --predict.{name}, or lower --predict.tile"
        yield from _images("caps", list(fullest), what, advice)


def _fullest_tile(boxes_xyxy: Array, size_hw: tuple[int, int], predict: PredictConfig) -> int:
    """The most cells that lie in one tile, by their centres."""
    x, y = ((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2).T
    most = 0
    for tile in tiles(size_hw, predict):
        across, down = tile.scale_xy
        inside = (tile.columns.start <= x * across) & (x * across < tile.columns.stop)
        inside &= (tile.rows.start <= y * down) & (y * down < tile.rows.stop)
        most = max(most, int(inside.sum()))
    return most


def _images(kind: Kind, names: Sequence[str], what: str, advice: str) -> Iterator[Finding]:
    """What is to be said of these images, if there are any."""
    if names:
        yield Finding(kind, f"{several(len(names), 'image')} {what}: {_some(names)}; {advice}", tuple(names))


def _cells(kind: Kind, seen: Survey, counts: Sequence[int], what: str, advice: str) -> Iterator[Finding]:
    """What is to be said of so many cells of each image, if there are any."""
    held = {name: count for name, count in zip(seen.found.names, counts, strict=True) if count}
    if held:
        listed = _some([f"{name} ({count:,})" for name, count in held.items()])
        yield Finding(kind, f"{several(sum(counts), 'cell')} {what}: {listed}; {advice}", tuple(held))


def _named(names: Sequence[str], chosen: Array) -> tuple[str, ...]:
    return tuple(name for name, each in zip(names, chosen, strict=True) if each)


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
