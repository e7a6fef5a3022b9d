import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from cellseg.codes import COUNTS, pixels_of, run_lengths
from cellseg.panoptic import best_pq_threshold, panoptic

SIZE = (40, 60)


def code_of(*boxes):
    """Run-length code of the union of boxes x, y, w, h."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = 1
    code = coco_mask.encode(mask)
    return {"size": list(SIZE), "counts": code["counts"].decode()}


def scene(truth, results):
    """The truth dict and results of one image from (label, box) and (label, box, score)."""
    annotations = [
        {"id": n, "image_id": 1, "category_id": label, "segmentation": code_of(box)}
        for n, (label, box) in enumerate(truth, start=1)
    ]
    found = [
        {"image_id": 1, "category_id": label, "segmentation": code_of(box), "score": score}
        for label, box, score in results
    ]
    images = [{"id": 1, "file_name": "1.tif", "height": SIZE[0], "width": SIZE[1]}]
    categories = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    return {"images": images, "categories": categories, "annotations": annotations}, found


SQUARES = [(1, (x, y, 10, 10)) for x, y in itertools.product((0, 20, 40), (0, 20))]


def test_the_truth_itself_scores_exactly_1():
    figures = panoptic(*scene(SQUARES, [(label, box, 1.0) for label, box in SQUARES]))
    assert (figures.pq, figures.f1, figures.aji) == ({1: 1.0}, {1: 1.0}, 1.0)


def test_disjoint_cells_score_0():
    figures = panoptic(*scene([(1, (0, 0, 10, 10))], [(1, (20, 20, 10, 10), 1.0)]))
    assert (figures.pq, figures.f1, figures.aji) == ({1: 0.0}, {1: 0.0}, 0.0)


def test_half_of_the_cells_found_gives_two_thirds():
    figures = panoptic(*scene(SQUARES, [(label, box, 1.0) for label, box in SQUARES[:3]]))
    assert figures.pq == figures.f1 == {1: pytest.approx(3 / (3 + 3 / 2))}
    assert figures.aji == 0.5  # 300 of 600 pixels


def test_a_shifted_square_scores_its_iou():
    figures = panoptic(*scene([(1, (0, 0, 10, 10))], [(1, (2, 0, 10, 10), 1.0)]))
    assert figures.pq == {1: pytest.approx(80 / 120)}
    assert figures.aji == pytest.approx(80 / 120)
    assert figures.f1 == {1: 1.0}


def test_a_cell_split_in_halves_has_no_match():
    figures = panoptic(*scene([(1, (0, 0, 10, 10))], [(1, (0, 0, 5, 10), 0.9), (1, (5, 0, 5, 10), 0.8)]))
    assert figures.pq == figures.f1 == {1: 0.0}  # an IoU of exactly .5 is no match
    assert figures.aji == pytest.approx(50 / (100 + 50))


def test_the_wrong_class_loses_pq_but_not_aji():
    truth = [(1, (0, 0, 10, 10)), (2, (20, 0, 10, 10))]
    figures = panoptic(*scene(truth, [(2, (0, 0, 10, 10), 1.0), (2, (20, 0, 10, 10), 1.0)]))
    assert figures.pq == {1: 0.0, 2: pytest.approx(1 / 1.5)}
    assert figures.aji == 1.0


def test_a_class_without_truth_has_no_figure():
    figures = panoptic(*scene([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 10), 1.0), (2, (20, 0, 10, 10), 1.0)]))
    assert figures.pq == figures.f1 == {1: 1.0}
    assert figures.aji == 0.5


def test_one_cell_over_two_counts_twice_in_aji():
    figures = panoptic(*scene([(1, (0, 0, 10, 10)), (1, (10, 0, 10, 10))], [(1, (0, 0, 20, 10), 1.0)]))
    assert figures.aji == pytest.approx((100 + 100) / (200 + 200))


def test_the_highest_score_wins_a_pixel_across_classes():
    boxes = [(1, (0, 0, 10, 10)), (2, (6, 0, 10, 10))]
    truth, results = scene(boxes, [(1, (0, 0, 10, 10), 0.6), (2, (6, 0, 10, 10), 0.9)])
    assert panoptic(truth, results).pq == {1: pytest.approx(60 / 100), 2: 1.0}
    assert panoptic(truth, results[::-1]).pq == {1: pytest.approx(60 / 100), 2: 1.0}


def test_the_earlier_of_two_equal_scores_wins():
    boxes = [(1, (0, 0, 10, 10)), (2, (6, 0, 10, 10))]
    figures = panoptic(*scene(boxes, [(label, box, 0.7) for label, box in boxes]))
    assert figures.pq == {1: 1.0, 2: pytest.approx(60 / 100)}


def test_a_vanished_cell_is_no_false_positive():
    figures = panoptic(*scene([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 10), 0.9), (1, (2, 2, 3, 3), 0.8)]))
    assert (figures.pq, figures.aji) == ({1: 1.0}, 1.0)


def test_results_under_the_threshold_are_not_drawn():
    truth, results = scene([(1, (0, 0, 10, 10))], [(1, (0, 0, 10, 10), 0.5), (1, (20, 0, 10, 10), 0.49)])
    assert panoptic(truth, results, threshold=0.5).f1 == {1: 1.0}
    assert panoptic(truth, results, threshold=0.4).f1 == {1: pytest.approx(1 / 1.5)}
    assert panoptic(truth, results, threshold=0.6).f1 == {1: 0.0}


def test_two_equal_truth_cells_share_no_match():
    figures = panoptic(*scene([(1, (0, 0, 10, 10))] * 2, [(1, (0, 0, 10, 10), 1.0)]))
    assert figures.pq == {1: pytest.approx(1 / 1.5)}


def test_figures_are_pooled_over_images():
    truth, results = scene(SQUARES, [(1, box, 1.0) for _, box in SQUARES])
    truth["images"].append({"id": 2, "file_name": "2.tif", "height": SIZE[0], "width": SIZE[1]})
    truth["annotations"].append({"id": 9, "image_id": 2, "category_id": 1, "segmentation": code_of((0, 0, 20, 30))})
    figures = panoptic(truth, results)
    assert figures.pq == {1: pytest.approx(6 / 6.5)}
    assert figures.aji == 0.5  # 600 of 600 + 600 pixels


@pytest.mark.parametrize("cells", [[], [(1, (0, 0, 1, 1))]])
def test_nothing_on_either_side_scores_0(cells):
    assert panoptic(*scene(cells, [])).aji == 0.0
    assert panoptic(*scene([], [(1, box, 1.0) for _, box in cells])).pq == {}


def test_an_empty_truth_mask_is_missed():
    assert panoptic(*scene([(1, (0, 0, 0, 0))], [])).pq == {1: 0.0}
    assert panoptic(*scene([(1, (0, 0, 0, 0))], [(1, (0, 0, 4, 4), 1.0)])).aji == 0.0


def reference(truth, results):
    """PQ of class 1, and AJI, by full-size masks and plain loops."""
    owner = np.full(SIZE, -1)
    for n in sorted(range(len(results)), key=lambda n: (results[n]["score"], -n)):
        owner[coco_mask.decode(results[n]["segmentation"]).astype(bool)] = n
    drawn = {n: owner == n for n in range(len(results)) if (owner == n).any()}
    cells = [coco_mask.decode(a["segmentation"]).astype(bool) for a in truth["annotations"]]
    labels = [a["category_id"] for a in truth["annotations"]]
    ious = {(g, p): (cells[g] & drawn[p]).sum() / (cells[g] | drawn[p]).sum() for g in range(len(cells)) for p in drawn}
    ones = [k for k in ious if labels[k[0]] == results[k[1]]["category_id"] == 1 and ious[k] > 0.5]
    count = labels.count(1) + sum(results[p]["category_id"] == 1 for p in drawn)
    shared = joined = 0
    used = set()
    for g, cell in enumerate(cells):
        best = max(drawn, key=lambda p: ious[g, p], default=None)
        if best is None or ious[g, best] == 0:
            joined += cell.sum()
            continue
        used.add(best)
        shared, joined = shared + (cell & drawn[best]).sum(), joined + (cell | drawn[best]).sum()
    joined += sum(mask.sum() for p, mask in drawn.items() if p not in used)
    return sum(ious[k] for k in ones) / (count / 2) if 1 in labels else None, shared / joined


@pytest.mark.parametrize("seed", range(8))
def test_random_scenes_score_as_with_full_size_masks(seed):
    rng = np.random.default_rng(seed)
    columns = [(1 + n % 2, (6 * n, int(rng.integers(0, 20)), 6, int(rng.integers(3, 20)))) for n in range(9)]
    moved = [(label, (x + int(rng.integers(0, 4)), y, w, h + 1)) for label, (x, y, w, h) in columns * 2]
    truth, results = scene(columns, [(label, box, round(rng.random(), 1)) for label, box in moved])
    figures = panoptic(truth, results, threshold=0.0)
    pq, aji = reference(truth, results)
    assert 0 < figures.pq[1] < 1
    assert figures.pq[1] == pytest.approx(pq, abs=1e-12)
    assert figures.aji == pytest.approx(aji, abs=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_pixels_are_those_that_pycocotools_decodes(height, width, grain, seed):
    coarse = np.random.default_rng(seed).random((height, width)) < 0.4
    mask = np.asfortranarray(np.kron(coarse, np.ones((grain, grain)))[: 4 * height, : 4 * width].astype(np.uint8))
    code = coco_mask.encode(mask)
    code["counts"] = code["counts"].decode()
    pixels, owners = pixels_of([code, code])
    flat = np.flatnonzero(mask.ravel(order="F"))
    np.testing.assert_array_equal(pixels, np.tile(flat, 2))
    np.testing.assert_array_equal(owners, np.repeat([0, 1], len(flat)))
    assert sum(run_lengths(code["counts"])) == mask.size


@pytest.mark.parametrize(
    ("counts", "words"),
    [("", "not the text"), ("Ø", "not the text"), ("0P", "not the text"), ("ooooooo0", "not the text"), ("5O", "-1")],
)
def test_broken_counts_are_refused(counts, words):
    with pytest.raises(ValueError, match=words):
        run_lengths(counts)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.text("07?OPo~!Ø", max_size=9), max_size=4))
def test_counts_that_are_taken_are_those_of_the_pattern(texts):
    try:
        alone = [run_lengths(counts) for counts in texts]
    except ValueError:
        alone = None
    codes = [{"size": [2**20, 2**20], "counts": counts} for counts in texts]
    if alone is None:
        with pytest.raises(ValueError, match="counts"):
            pixels_of(codes)
    assert alone is None or all(map(COUNTS.fullmatch, texts))


@settings(deadline=None, derandomize=True)
@given(st.lists(arrays(bool, (5, 7)), max_size=5))
def test_many_codes_have_the_pixels_of_each_alone(masks):
    codes = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    codes = [{"size": [5, 7], "counts": code["counts"].decode()} for code in codes]
    pixels, owners = pixels_of(codes)
    for number, mask in enumerate(masks):
        assert pixels[owners == number].tolist() == np.flatnonzero(mask.ravel(order="F")).tolist()


def test_counts_beyond_their_image_are_refused():
    with pytest.raises(ValueError, match=r"mask 1 of 2 .* cover 5 pixels of \[2, 2\]"):
        pixels_of([{"size": [2, 2], "counts": "04"}, {"size": [2, 2], "counts": "05"}])


def test_the_best_pq_threshold_is_the_lowest_that_leaves_out_the_false_cells():
    """Cells at .62 and .9, false ones at .32 and .58: .6 draws the cells alone."""
    found = [(1, SQUARES[0][1], 0.9), (1, SQUARES[1][1], 0.62), (1, (48, 28, 5, 5), 0.58), (1, (48, 34, 5, 5), 0.32)]
    truth, results = scene(SQUARES[:2], found)
    assert best_pq_threshold(truth, results) == 0.6
    assert panoptic(truth, results, 0.6).pq == {1: 1.0}


def test_the_best_pq_threshold_weighs_classes_alike():
    """A cell of class 2 at .22 is worth more than two false cells of class 1 among four true ones at .3."""
    found = [(1, box, 0.9) for _, box in SQUARES[:4]] + [(1, (48, 28, 5, 5), 0.3), (1, (48, 34, 5, 5), 0.3)]
    truth, results = scene([*SQUARES[:4], (2, (20, 32, 8, 8))], [*found, (2, (20, 32, 8, 8), 0.22)])
    assert best_pq_threshold(truth, results) == 0.05  # 4 / (4 + 1) and 1, against 1 and 0


def test_a_threshold_for_no_cells_is_refused():
    with pytest.raises(ValueError, match="expected a truth with cells, found none"):
        best_pq_threshold(*scene([], []))
