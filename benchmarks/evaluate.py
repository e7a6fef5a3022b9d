"""Claim: all scores of a validation (AP at 100 and uncapped, PQ, AJI, F1), against pycocotools' AP alone.

The rows "AP alone" compare the part of ours that gives the same figures. Theirs, called as everybody does, gives AP
also of small, medium and large cells; the last rows spare it that.
"""

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

from measure import Case, main

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rows import Notes
from scenes import tissue

from cellseg import evaluate
from cellseg.codes import Array, encode
from cellseg.label_maps import boxes_of, codes_of

IMAGES = (10, 20, 40)
SIDE = 500
CELLS, RESULTS = 160, 400
"""of an image"""
Record = dict[str, Any]
VARIANTS: tuple[tuple[str, Callable[..., object], dict[str, bool]], ...] = (
    ("all scores", evaluate.score, {}),
    ("AP alone", evaluate._precisions, {}),
    ("AP alone, theirs of all sizes alone", evaluate._precisions, {"size_ranges": False}),
)
"""name, ours, and options of theirs"""


def cases(quick: bool) -> list[Case]:
    """More and more dense images, all scores first and then AP alone."""
    sizes, cells, results, side = ((1,), 9, 120, 90) if quick else (IMAGES, CELLS, RESULTS, SIDE)
    scored = [(count, *truth_and_results(count, cells, results, side)) for count in sizes]
    return [
        Case(
            count,
            partial(ours, truth, found),
            partial(pycocotools_precision, truth, found, **theirs),
            partial(compared, truth, found),
            {"variant": variant, "cells": len(truth["annotations"]), "results": len(found)},
        )
        for variant, ours, theirs in VARIANTS
        for count, truth, found in scored
    ]


def truth_and_results(images: int, cells: int, results: int, side: int) -> tuple[Record, list[Record]]:
    """A truth of four classes, and results that shift its cells: a little and sure, or far and unsure."""
    truth: Record = {
        "images": [{"id": k, "height": side, "width": side} for k in range(1, images + 1)],
        "categories": [{"id": k, "name": f"class{k}"} for k in (1, 2, 3, 4)],
        "annotations": [],
    }
    found: list[Record] = []
    for image_id in range(1, images + 1):
        _, label_maps = tissue(cells, (side, side), seed=image_id)
        for label, plane in enumerate(label_maps, start=1):
            for code in codes_of(plane):
                number = len(truth["annotations"]) + 1  # 0 means "unmatched" to pycocotools: pytorch/vision#1530
                truth["annotations"].append(
                    {"id": number, "image_id": image_id, "category_id": label, "segmentation": code, "iscrowd": 0}
                    | {"area": 1}
                )
        found += shifted(label_maps, image_id, results)
    return truth, found


def shifted(label_maps: Array, image_id: int, count: int) -> list[Record]:
    """Results of one image: its cells in turn, each moved by a few pixels, one in ten with another class."""
    rng = np.random.default_rng(image_id)
    side = label_maps.shape[1]
    cells = [
        (label, plane[y1:y2, x1:x2] == plane[y1:y2, x1:x2].max(), (x1, y1))
        for label, plane in enumerate(label_maps, start=1)
        for x1, y1, x2, y2 in boxes_of(plane).astype(int).tolist()
    ]
    chosen = [cells[k % len(cells)] for k in range(count)]
    moves = np.rint(rng.normal(0, 2.5, (count, 2))).astype(int)
    limits = np.array([[side - mask.shape[1], side - mask.shape[0]] for _, mask, _ in chosen])
    corners = np.clip(np.array([corner for *_, corner in chosen]) + moves, 0, limits)
    scores = np.clip(0.95 - np.hypot(*moves.T) / 10 + rng.normal(0, 0.1, count), 0.01, 0.99).round(6)
    labels = [label if rng.random() < 0.9 else int(rng.integers(1, 5)) for label, *_ in chosen]
    codes = encode([mask for _, mask, _ in chosen], corners, (side, side))
    return [
        {"image_id": image_id, "category_id": label, "score": float(score), "segmentation": code}
        for label, score, code in zip(labels, scores, codes, strict=True)
    ]


def pycocotools_precision(truth: Record, results: list[Record], size_ranges: bool = True) -> Array:
    """Precisions (K, M, T, R) as pycocotools gives them, from the same dicts; copies, because loadRes changes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "annotations": [dict(each) for each in truth["annotations"]]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(each) for each in results]), "segm")
        most = max(np.bincount([each["image_id"] for each in results]).tolist())
        evaluation.params.maxDets = [1, evaluate.CAP, max(evaluate.CAP, most)]
        if not size_ranges:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision: Array = evaluation.eval["precision"]  # (T, R, K, A, M)
    return precision[:, :, :, 0, 1:].transpose(2, 3, 0, 1)


def compared(truth: Record, results: list[Record]) -> Notes:
    """AP, AP50 and AP75 of each class, at 100 and uncapped, are equal to 1e-9."""
    scores = evaluate.score(truth, results)
    greatest = 0.0
    for name, theirs in zip(
        ("class1", "class2", "class3", "class4"), pycocotools_precision(truth, results), strict=True
    ):
        for suffix, precision in zip(("", "_uncapped"), theirs, strict=True):
            if (precision < 0).any():  # a class without a cell
                assert name not in scores.per_class
                continue
            for metric, value in (("AP", precision), ("AP50", precision[0]), ("AP75", precision[5])):
                greatest = max(greatest, abs(scores.per_class[name][metric + suffix] - float(value.mean())))
    assert greatest < 1e-9, f"evaluate: a figure differs by {greatest}"
    return {"difference": greatest, "AP_uncapped": scores.metrics["AP_uncapped"]}


if __name__ == "__main__":
    main("evaluate", cases)
