"""Results + truth -> Scores: mask AP as pycocotools gives it, PQ, AJI and F1, also per class, and precision curves.

AP comes twice: with at most 100 detections of a class per image, which pycocotools' summary hard-codes, and uncapped.
Letters: T IoU thresholds .5, .55, … .95; R recalls 0, .01, … 1; K classes; M caps on detections (100 and none).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from cellseg.codes import COUNTS, Array, well_formed
from cellseg.panoptic import Record, panoptic

CAP = 100
AP_METRICS = ("AP", "AP50", "AP75")
METRICS = (*AP_METRICS, *(f"{name}_uncapped" for name in AP_METRICS), "PQ", "AJI", "F1")


@dataclass(frozen=True)
class Scores:
    """Every figure is 0..1 and finite. Classes without a cell in the truth are in no mean, no per_class, no curves."""

    metrics: dict[str, float]
    """the METRICS; means over classes, but for the class-agnostic AJI"""
    per_class: dict[str, dict[str, float]]
    """category name -> the METRICS of that class but for AJI"""
    curves: dict[str, dict[str, list[float]]]
    """category name -> "recall" and "precision", 101 values each, at IoU .5, uncapped"""

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain dicts, lists and floats, ready for JSON."""
        return asdict(self)


def score(truth: Mapping[str, Any], results: Sequence[Record], threshold: float = 0.5) -> Scores:
    """Scores of COCO results against a COCO truth dict; neither is changed.

    AP takes all results, equal scores in the order of the list; PQ, AJI and F1 take those of at least the threshold.
    Without truth or results every metric is 0. Raises ValueError for ids that the truth does not define, a score that
    is not finite, or a mask of another size than its image.
    """
    _check(truth, results)
    drawn = panoptic(truth, results, threshold)
    precisions = dict(zip(sorted(_names(truth)), _precisions(truth, results), strict=True))
    per_class: dict[str, dict[str, float]] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    for category, name in _names(truth).items():
        if category in drawn.pq:
            capped, uncapped = precisions[category]
            per_class[name] = {
                **_average_precisions(capped, ""),
                **_average_precisions(uncapped, "_uncapped"),
                "PQ": drawn.pq[category],
                "F1": drawn.f1[category],
            }
            recalls = np.linspace(0, 1, len(uncapped[0]))
            curves[name] = {"recall": recalls.tolist(), "precision": uncapped[0].tolist()}
    classes = per_class.values()
    means = {name: sum(one.get(name, 0.0) for one in classes) / max(len(classes), 1) for name in METRICS}
    return Scores(metrics=means | {"AJI": drawn.aji}, per_class=per_class, curves=curves)


def _names(truth: Mapping[str, Any]) -> dict[int, str]:
    return {category["id"]: category["name"] for category in truth["categories"]}


def _average_precisions(precision: Array, suffix: str) -> dict[str, float]:
    """AP, AP50 and AP75 of one class from its precisions (T, R)."""
    values = (precision.mean(), precision[0].mean(), precision[5].mean())
    return {name + suffix: float(value) for name, value in zip(AP_METRICS, values, strict=True)}


def _precisions(truth: Mapping[str, Any], results: Sequence[Record]) -> Array:
    """Precisions (K, M, T, R) of the categories in order of id; -1 where a class does not occur in the truth."""
    evaluation = COCOeval_faster(_indexed(truth, truth["annotations"]), _indexed(truth, results), iouType="segm")
    most = max(Counter(result["image_id"] for result in results).values(), default=0)
    evaluation.params.maxDets = [CAP, max(CAP, most)]  # stats[0] would hard-code 100; the array is read instead
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: Array = evaluation.eval["precision"]  # (T, R, K, 1, M)
    return precision[:, :, :, 0].transpose(2, 3, 0, 1)


def _indexed(truth: Mapping[str, Any], records: Sequence[Record]) -> COCO:
    """The records as the evaluation wants them: copies, because it adds keys, and ids from 1, as 0 means unmatched."""
    annotations = [
        {
            "id": number,
            "image_id": record["image_id"],
            "category_id": record["category_id"],
            "segmentation": record["segmentation"],
            "score": record.get("score", 1.0),
            "area": 1,  # decides the size range alone, and there is one
            "iscrowd": 0,
        }
        for number, record in enumerate(records, start=1)
    ]
    images, categories = (list(map(dict, truth[key])) for key in ("images", "categories"))
    return COCO({"images": images, "categories": categories, "annotations": annotations})


def _check(truth: Mapping[str, Any], results: Sequence[Record]) -> None:
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    names = _names(truth)
    for kind, records in (("annotation", truth["annotations"]), ("result", results)):
        formed = well_formed([record["segmentation"]["counts"] for record in records])
        for number, record in enumerate(records):
            if problem := _problem(record, sizes, names, formed):
                raise ValueError(f"{kind} {number}: {problem}")


def _problem(record: Record, sizes: Mapping[int, list[int]], names: Mapping[int, str], formed: bool) -> str:
    """What is wrong with an annotation or result, in a few words; nothing when nothing is."""
    code = record["segmentation"]
    if record["image_id"] not in sizes:
        return f"image_id {record['image_id']!r} is not among the {len(sizes)} images of the truth"
    if record["category_id"] not in names:
        return f"category_id {record['category_id']!r} is not one of {sorted(names)}, the categories of the truth"
    if list(code["size"]) != sizes[record["image_id"]]:
        return f"mask of size {code['size']}, but its image is {sizes[record['image_id']]}"
    if not formed and not COUNTS.fullmatch(code["counts"]):  # the evaluation would read past its end
        return "counts are not the text of a run-length code"
    if record.get("iscrowd"):
        return "iscrowd is not supported; give each cell its own annotation"
    return "" if isfinite(record.get("score", 0)) else f"score {record['score']!r} is not finite"
