"""What networks answered when they were asked in other ways: the settings, the records, and the table of both."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy_table import METRICS, markdown, short

from cellseg.whole_files import write_whole

BASE, CALIBRATED, TOGETHER = "as the recipe has it", "calibrated", "the networks of all seeds together"
SETTINGS: dict[str, Mapping[str, Any]] = {
    BASE: {},
    "rescoring off": {"rescore": False},
    "views 2": {"views": 2},
    "views 4": {"views": 4},
    "views 8": {"views": 8},
    "zooms 1, 1.25": {"zooms": (1.0, 1.25)},
    "zooms .8, 1": {"zooms": (0.8, 1.0)},
    "zooms 1, 1.25, views 8": {"zooms": (1.0, 1.25), "views": 8},
    "score threshold .01": {"score_threshold": 0.01},
    "score threshold .05": {"score_threshold": 0.05},
    "score threshold .1": {"score_threshold": 0.1},
    "box NMS .4": {"box_nms": 0.4},
    "box NMS .4, score threshold .01": {"box_nms": 0.4, "score_threshold": 0.01},
    "box NMS .5": {"box_nms": 0.5},
    "box NMS .6": {"box_nms": 0.6},
    "mask threshold .4": {"mask_threshold": 0.4},
    "mask threshold .6": {"mask_threshold": 0.6},
    "pq threshold .3": {"pq_threshold": 0.3},
    "pq threshold .4": {"pq_threshold": 0.4},
    "pq threshold .5": {"pq_threshold": 0.5},
    "proposals 1000": {"proposals": 1000},
    "detections 500": {"detections": 500},
    "detections 2000": {"detections": 2000},
    "detections 2000, box NMS .4, score threshold .01": {
        "detections": 2000,
        "box_nms": 0.4,
        "score_threshold": 0.01,
    },
    "proposals 6000, detections 2000, box NMS .4, score threshold .01": {
        "proposals": 6000,
        "detections": 2000,
        "box_nms": 0.4,
        "score_threshold": 0.01,
    },
    CALIBRATED: {},
    TOGETHER: {},
}
"""fields of PredictConfig that each setting changes

Scores of images that were calibrated apart are in no order: the gain of `calibrated`, each image by what was fitted to
the others, is the mean of the gains in the figures of single images.
"""
IN_TORCHVISION = {"proposals", "detections", "box_nms", "score_threshold"}
"""fields that torchvision has too, for a whole image"""


@dataclass(frozen=True)
class Answer:
    """The figures of one setting and one network."""

    setting: str
    seed: int
    """of the network; -1 where those of all seeds predict together"""
    network: str
    """digest of its checkpoint, and of the setting's fields"""
    metrics: Mapping[str, float]
    checkpoints: tuple[str, ...] = ()
    """digest of each network's checkpoint; empty in records that do not tell"""


def digest(paths: Sequence[Path], fields: Mapping[str, Any]) -> str:
    """16 hex digits of checkpoints and a setting's fields."""
    made = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8)
    for path in paths:
        made.update(path.read_bytes())
    return made.hexdigest()


def read(file: Path) -> list[Answer]:
    """The answers on record."""
    if not file.exists():
        return []
    try:
        answers = [Answer(**each) for each in json.loads(file.read_text())]
        return [replace(each, checkpoints=tuple(each.checkpoints)) for each in answers]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: expected answers of this version, got {error}; move the file away") from error


def add(answer: Answer, file: Path) -> None:
    """Write an answer beside those on record, in place of an older one of its setting and seed."""
    others = [each for each in read(file) if (each.setting, each.seed) != (answer.setting, answer.seed)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(json.dumps([asdict(each) for each in [*others, answer]], indent=1) + "\n", file)


def report(answers: Sequence[Answer], settings: Sequence[str]) -> str:
    """A row a setting: the means over the seeds, and how far AP50 is above the recipe's own, with its range.

    Answers of networks that were not asked as the recipe has it are left out, and named.
    """
    bases = [each for each in answers if each.setting == BASE]
    lines, left_out = [], []
    for name in settings:
        found = [(each, own_of(each, bases)) for each in answers if each.setting == name]
        if compared := [(each, own) for each, own in found if own]:
            means = [short(mean(each.metrics[metric] for each, _ in compared)) for metric in METRICS]
            gains = [[gain(each, own, metric) for each, own in compared] for metric in ("AP50", "AP50_uncapped")]
            lines.append([name, *means, *([""] * 2 if name == BASE else map(signed, gains))])
        left_out += [f"{name} (seed {each.seed})" for each, own in found if not own]
    head = ["setting", *(each.replace("_", " ") for each in METRICS), "AP50 more", "AP50 uncapped more"]
    parts = [markdown(head, lines)] if lines else []
    if left_out:
        parts.append(f'left out, as the same networks were not asked "{BASE}": {", ".join(left_out)}')
    return "\n\n".join(parts) or "no answer on record"


def own_of(answer: Answer, bases: Sequence[Answer]) -> list[Answer]:
    """The answers, among those as the recipe has it, of the networks of an answer; none unless of each of them."""
    of_seeds = [base for base in bases if answer.seed in (base.seed, -1)]
    if not answer.checkpoints:
        return [] if any(base.checkpoints for base in of_seeds) else of_seeds
    own = [base for base in of_seeds if base.network in answer.checkpoints]  # without fields it is the checkpoint's
    return own if len(own) == len(answer.checkpoints) else []


def gain(answer: Answer, own: Sequence[Answer], metric: str) -> float:
    """How far an answer is above the mean of the recipe's own."""
    return answer.metrics[metric] - mean(each.metrics[metric] for each in own)


def signed(gains: Sequence[float]) -> str:
    """Mean and range of differences; noise where they do not agree on the sign."""
    low, high = min(gains), max(gains)
    verdict = "" if low > 0 or high < 0 else ", noise"
    return f"{mean(gains):+.3f} ({low:+.3f} to {high:+.3f}){verdict}"
