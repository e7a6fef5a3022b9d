import pytest
import torch

from cellseg.class_rows import shared_labels, with_classes

SCORES = "roi_heads.box_predictor.cls_score.weight"
BOXES = "roi_heads.later_stages.0.predictor.bbox_pred.bias"
QUALITIES = "roi_heads.mask_quality.output.bias"


@pytest.mark.parametrize(
    ("before", "now", "labels"),
    [
        (("a", "b"), ("a", "b"), {1: 1, 2: 2}),
        (("a", "b"), ("b", "a"), {1: 2, 2: 1}),
        (("a", "b", "c"), ("c", "new"), {1: 3}),
        (("a", "b"), ("A", "new"), {}),
        (("class1", "class2"), ("class1", "class2", "class3"), {1: 1, 2: 2}),
        (("class1", "class2"), ("class1", "b"), {}),  # what class1 means is known to nobody
        (("class1", "b"), ("class1", "b"), {2: 2}),
    ],
)
def test_classes_are_matched_by_name_and_by_position_where_all_names_are_positions(before, now, labels):
    assert shared_labels(before, now) == labels


def test_rows_follow_their_class_and_the_background_stays():
    state = {
        SCORES: torch.tensor([[10.0], [11.0], [12.0]]),
        BOXES: torch.arange(12.0),  # 4 rows a class: background 0 to 3, a 4 to 7, b 8 to 11
        QUALITIES: torch.tensor([1.0, 2.0]),  # no background
    }
    own = {SCORES: torch.zeros(4, 1), BOXES: torch.full((16,), -1.0), QUALITIES: torch.zeros(3)}
    taken = with_classes(state, own, ("a", "b"), ("b", "new", "a"))
    assert taken[SCORES][:, 0].tolist() == [10, 12, 0, 11]
    assert taken[BOXES].tolist() == [0, 1, 2, 3, 8, 9, 10, 11, -1, -1, -1, -1, 4, 5, 6, 7]
    assert taken[QUALITIES].tolist() == [2, 0, 1]
    assert own[SCORES].tolist() == [[0.0]] * 4


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [
        ("rpn.head.bbox_pred.weight", torch.ones(12, 3), torch.zeros(16, 3)),  # of anchors, not of classes
        (BOXES, torch.ones(4), torch.zeros(4)),  # a cascade moves a box alike for all classes
        (SCORES, torch.ones(3, 8), torch.zeros(4, 16)),  # another width
        (SCORES, torch.ones(9, 8), torch.zeros(4, 8)),  # not the number of classes that the names say
        ("roi_heads.box_head.fc6.weight", torch.ones(3, 2), torch.zeros(4, 2)),
        ("other.weight", torch.ones(3), None),
    ],
)
def test_tensors_without_rows_for_these_classes_stay_as_the_file_has_them(name, value, own):
    taken = with_classes({name: value}, {} if own is None else {name: own}, ("a", "b"), ("b", "new", "a"))
    assert taken[name] is value
