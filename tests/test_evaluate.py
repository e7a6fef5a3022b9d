import contextlib
import copy
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellseg.evaluate import METRICS, score
from cellseg.label_maps import codes_of

SHARED = Path(__file__).parents[2] / "shared" / "data"
SIDE = 200


def code_of(mask):
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def square(x, y, w=10, h=10, side=SIDE):
    mask = np.zeros((side, side), bool)
    mask[y : y + h, x : x + w] = True
    return code_of(mask)


def truth_of(cells, num_images=1, num_classes=2, side=SIDE):
    """A truth dict from (image_id, label, code)."""
    images = [{"id": n, "file_name": f"{n}.tif", "height": side, "width": side} for n in range(1, num_images + 1)]
    annotations = [
        {
            "id": number,
            "image_id": image_id,
            "category_id": label,
            "bbox": coco_mask.toBbox(code).tolist(),
            "area": int(coco_mask.area(code)),
            "iscrowd": 0,
            "segmentation": code,
        }
        for number, (image_id, label, code) in enumerate(cells, start=1)
    ]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, num_classes + 1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def results_of(cells):
    """Results from (image_id, label, code, score)."""
    return [
        {
            "image_id": image_id,
            "category_id": label,
            "bbox": coco_mask.toBbox(code).tolist(),
            "score": confidence,
            "segmentation": code,
        }
        for image_id, label, code, confidence in cells
    ]


def as_results(truth, confidence=1.0):
    return results_of([(a["image_id"], a["category_id"], a["segmentation"], confidence) for a in truth["annotations"]])


def grid(count):
    return [(1, 1, square(10 * x, 10 * y, 8, 8)) for y, x in itertools.product(range(20), range(20))][:count]


def random_scene(seed, side=96):
    """Four images of four classes, one of them empty, with more than 100 jittered, doubled, tied results each."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[:side, :side]
    cells, found = [], []
    for image_id, _ in itertools.product((1, 2, 4), range(115)):
        y, x, radius, label = *rng.uniform(0, side - 1, 2), rng.uniform(3, 8), int(rng.choice(4, p=[0.7, 0.2, 0.1, 0]))
        cells.append((image_id, label + 1, code_of((ys - y) ** 2 + (xs - x) ** 2 <= radius**2)))
        for _ in range(rng.integers(0, 5)):
            y, x, radius = y + rng.normal(0, 0.7), x + rng.normal(0, 0.7), radius * rng.uniform(0.9, 1.1)
            disk = code_of((ys - y) ** 2 + (xs - x) ** 2 <= radius**2)
            kind = label + 1 if rng.random() < 0.8 else int(rng.integers(1, 5))
            found.append((image_id if rng.random() < 0.97 else 3, kind, disk, round(rng.random(), 2)))
    found += found[::10]
    return truth_of(cells, num_images=4, num_classes=4, side=side), results_of(found)


def by_pycocotools(truth, results, cap):
    """Precisions (10, 101, K) at a cap of detections."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "segm")
        evaluation.params.maxDets = [1, 10, cap]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1]


@pytest.mark.parametrize("seed", range(3))
def test_ap_equals_pycocotools(seed):
    truth, results = random_scene(seed)
    scores = score(truth, results)
    assert max(np.bincount([4 * r["image_id"] + r["category_id"] for r in results])) > 100  # the cap cuts a class
    for cap, suffix in ((100, ""), (len(results), "_uncapped")):
        precision = by_pycocotools(truth, results, cap)
        present = precision[..., :3]
        assert (precision[..., 3] == -1).all()  # the fourth class has results but no truth
        for name, values in (("AP", present), ("AP50", present[0]), ("AP75", present[5])):
            assert scores.metrics[name + suffix] == pytest.approx(values.mean(), abs=1e-9)
            for k in range(3):
                figure = scores.per_class[f"class {k + 1}"][name + suffix]
                assert figure == pytest.approx(values[..., k].mean(), abs=1e-9)
    np.testing.assert_allclose(scores.curves["class 1"]["precision"], precision[0, :, 0], atol=1e-9)
    assert scores.metrics["AP"] != scores.metrics["AP_uncapped"]


def test_perfect_results_score_1():
    scores = score(truth_of(grid(50)), as_results(truth_of(grid(50))))
    assert scores.metrics == pytest.approx(dict.fromkeys(METRICS, 1.0), abs=1e-12)
    assert list(scores.metrics) == list(METRICS)


def test_300_perfect_cells_score_a_third_at_100_detections_and_1_uncapped():
    truth = truth_of(grid(300))
    metrics = score(truth, as_results(truth)).metrics
    assert metrics["AP"] == metrics["AP50"] == metrics["AP75"] == pytest.approx(34 / 101)  # recalls 0, .01, … .33
    assert metrics["AP_uncapped"] == metrics["AP50_uncapped"] == metrics["AP75_uncapped"] == pytest.approx(1)


def test_half_of_the_cells_found_gives_half_the_ap():
    truth = truth_of(grid(60))
    assert score(truth, as_results(truth)[:30]).metrics["AP50"] == pytest.approx(51 / 101)  # recalls 0, .01, … .5


def test_a_shifted_square_counts_up_to_its_iou():
    scores = score(truth_of([(1, 1, square(20, 20))]), results_of([(1, 1, square(22, 20), 0.9)]))
    assert scores.metrics["AP50"] == pytest.approx(1)
    assert scores.metrics["AP75"] == 0
    assert scores.metrics["AP"] == pytest.approx(0.4)  # 80 / 120 passes .5, .55, .6, .65
    assert scores.metrics["PQ"] == scores.metrics["AJI"] == pytest.approx(80 / 120)
    assert scores.metrics["F1"] == 1


def test_a_false_positive_that_scores_higher_halves_the_precision():
    found = [(1, 1, square(100, 100), 0.9), (1, 1, square(20, 20), 0.8)]
    scores = score(truth_of([(1, 1, square(20, 20))]), results_of(found))
    assert scores.metrics["AP50"] == pytest.approx(0.5)
    assert scores.curves["class 1"]["precision"] == pytest.approx([0.5] * 101)
    assert scores.curves["class 1"]["recall"] == pytest.approx(np.arange(101) / 100)


def test_equal_scores_keep_the_order_of_the_list():
    truth = truth_of([(1, 1, square(20, 20))])
    found = [(1, 1, square(20, 20), 0.5), *[(1, 1, square(100, 100), 0.5)] * 40]
    assert score(truth, results_of(found)).metrics["AP50"] == pytest.approx(1)
    assert score(truth, results_of(found[::-1])).metrics["AP50"] == pytest.approx(1 / 41)


def test_the_wrong_class_scores_0():
    truth = truth_of([(1, 1, square(20, 20))])
    metrics = score(truth, results_of([(1, 2, square(20, 20), 0.9)])).metrics
    assert metrics.pop("AJI") == 1  # knows no classes
    assert set(metrics.values()) == {0.0}


def test_a_class_without_truth_is_in_no_mean():
    truth = truth_of([(1, 2, square(20, 20))], num_classes=3)
    scores = score(truth, results_of([(1, 2, square(20, 20), 0.9), (1, 3, square(60, 60), 0.9)]))
    assert scores.metrics["AP"] == scores.metrics["PQ"] == pytest.approx(1)
    assert list(scores.per_class) == list(scores.curves) == ["class 2"]


def test_categories_may_come_in_any_order():
    truth = truth_of([(1, 1, square(20, 20)), (1, 2, square(60, 60))])
    truth["categories"].reverse()
    scores = score(truth, as_results(truth)[:1])
    assert {name: figures["AP"] for name, figures in scores.per_class.items()} == pytest.approx(
        {"class 1": 1, "class 2": 0}
    )


@pytest.mark.parametrize("cells", [[], [(1, 1, square(20, 20))]])
def test_no_results_score_0(cells):
    assert score(truth_of(cells), []).metrics == dict.fromkeys(METRICS, 0.0)


def test_an_empty_truth_scores_0():
    found = results_of([(1, 1, square(20, 20), 0.9)])
    assert score(truth_of([]), found).metrics == dict.fromkeys(METRICS, 0.0)
    assert score({"images": [], "categories": [], "annotations": []}, []).to_dict()["per_class"] == {}
    assert score(truth_of([], num_images=0), []).metrics == dict.fromkeys(METRICS, 0.0)


def test_an_annotation_id_of_0_is_matched():
    truth = truth_of([(1, 1, square(20, 20))])
    truth["annotations"][0]["id"] = 0
    assert score(truth, as_results(truth)).metrics["AP"] == pytest.approx(1)


def test_arguments_stay_as_they_are_and_nothing_is_printed(capfd):
    truth, results = random_scene(0)
    before = copy.deepcopy((truth, results))
    first = score(truth, results)
    assert (truth, results) == before
    assert score(truth, results) == first
    assert capfd.readouterr() == ("", "")


def test_scores_are_valid_json():
    truth, results = random_scene(1)
    scores = score(truth, results)
    text = json.dumps(scores.to_dict(), allow_nan=False)
    assert json.loads(text) == {"metrics": scores.metrics, "per_class": scores.per_class, "curves": scores.curves}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 9}, "result 0: image_id 9 is not among the 1 images"),
        ({"category_id": 9}, r"result 0: category_id 9 is not one of \[1, 2\]"),
        ({"score": float("nan")}, "result 0: score nan is not finite"),
        ({"segmentation": square(0, 0, side=50)}, r"result 0: mask of size \[50, 50\], but its image is \[200, 200\]"),
        ({"segmentation": {"size": [200, 200], "counts": "ooo"}}, "result 0: counts are not the text"),
        ({"segmentation": {"size": [200, 200], "counts": "0o_N"}}, "counts"),
    ],
)
def test_results_that_do_not_fit_the_truth_are_refused(change, words):
    truth = truth_of([(1, 1, square(20, 20))])
    with pytest.raises(ValueError, match=words):
        score(truth, [as_results(truth)[0] | change])


def test_crowd_annotations_are_refused():
    truth = truth_of([(1, 1, square(20, 20))])
    truth["annotations"][0]["iscrowd"] = 1
    with pytest.raises(ValueError, match="annotation 0: iscrowd"):
        score(truth, [])


def real_truth(folders):
    """The truth of training folders; in all of shared/data no two cells share a pixel."""
    truth = truth_of([], num_images=0, num_classes=4)
    for image_id, folder in enumerate(folders, start=1):
        planes = {
            k: tifffile.imread(folder / f"class{k}.tif") for k in range(1, 5) if (folder / f"class{k}.tif").exists()
        }
        height, width = next(iter(planes.values())).shape
        truth["images"].append({"id": image_id, "file_name": folder.name, "height": height, "width": width})
        for label, plane in planes.items():
            for code in codes_of(plane.astype(np.int32)):
                number = len(truth["annotations"]) + 1
                annotation = {"id": number, "image_id": image_id, "category_id": label, "segmentation": code}
                truth["annotations"].append(annotation)
    return truth


@pytest.mark.parametrize("name", ["hw3_sample", "monusac", "consep", "dsb2018"])
def test_real_truth_as_results_scores_1(name):
    folders = sorted((SHARED / name / "train").glob("*"))[:5]
    if not folders:
        pytest.skip(f"{SHARED / name / 'train'} is absent")
    truth = real_truth(folders)
    metrics = score(truth, as_results(truth)).metrics
    assert [metrics[key] for key in ("AP_uncapped", "AP50_uncapped", "AP75_uncapped")] == pytest.approx([1, 1, 1])
    assert metrics["PQ"] == metrics["AJI"] == metrics["F1"] == 1
