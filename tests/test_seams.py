import torch

from cellseg.config import PredictConfig
from cellseg.seams import Detections, stitched
from cellseg.tiles import tiles

TILED = PredictConfig(zoom=1.0, tile=64, overlap=32)  # spans 0..64, 32..96, …


def detections(*boxes, scores=None, labels=None):
    """Detections whose masks carry their scores."""
    scores = torch.tensor(scores or [0.9] * len(boxes))
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels or [1] * len(boxes), dtype=torch.int64),
        scores,
        scores[:, None, None].expand(-1, 28, 28),
    )


def stitched_of(size_hw, *found):
    """Boxes and scores after each row."""
    rows = stitched(zip(tiles(size_hw, TILED), found, strict=True), 0.5)
    return [sorted(zip(row.boxes.tolist(), [round(s, 3) for s in row.scores.tolist()], strict=True)) for row in rows]


def test_of_a_cell_that_two_tiles_of_a_row_have_found_the_better_stays():
    left, right = detections([40, 10, 52, 20], scores=[0.6]), detections([41, 10, 53, 20], scores=[0.8])
    assert stitched_of((64, 96), left, right) == [[([41, 10, 53, 20], 0.8)]]


def test_a_cell_that_its_tile_has_cut_gives_way_to_the_whole_one_whatever_the_scores():
    left, right = detections([40, 10, 64, 20], scores=[0.9]), detections([40, 10, 70, 20], scores=[0.3])
    assert stitched_of((64, 96), left, right) == [[([40, 10, 70, 20], 0.3)]]
    right = detections([32, 10, 52, 20], scores=[0.9])  # here the other tile cuts it, on its left
    assert stitched_of((64, 96), detections([28, 10, 52, 20], scores=[0.3]), right) == [[([28, 10, 52, 20], 0.3)]]


def test_a_cell_that_the_next_row_can_see_waits_for_it():
    above = detections([5, 5, 15, 15], [5, 40, 15, 52], [30, 20, 40, 32], scores=[0.9, 0.6, 0.5])
    below = detections([5, 41, 15, 53], scores=[0.7])
    first, second = stitched_of((96, 64), above, below)
    assert first == [([5, 5, 15, 15], 0.9), ([30, 20, 40, 32], 0.5)]  # the second ends where the next row begins
    assert second == [([5, 41, 15, 53], 0.7)]


def test_a_cell_where_four_tiles_meet_is_kept_once():
    found = [detections([44 + k / 2, 44, 52 + k / 2, 52], scores=[0.9 - k / 10]) for k in range(4)]
    assert stitched_of((96, 96), *found) == [[], [([44, 44, 52, 52], 0.9)]]


def test_neighbours_are_no_doubles():
    left, right = detections([40, 10, 50, 20]), detections([46, 10, 56, 20])
    assert len(stitched_of((64, 96), left, right)[0]) == 2


def test_of_a_cell_that_two_tiles_name_differently_the_surer_tile_says_all():
    left = detections([40, 30, 50, 40], [40, 30, 50, 40], scores=[0.9, 0.3], labels=[1, 2])
    right = detections([40, 30, 50, 40], [41, 30, 51, 40], scores=[0.6, 0.5], labels=[2, 1])
    assert stitched_of((64, 96), left, right) == [[([40, 30, 50, 40], 0.3), ([40, 30, 50, 40], 0.9)]]
    assert stitched_of((64, 96), right, left) == [[([40, 30, 50, 40], 0.3), ([40, 30, 50, 40], 0.9)]]


def test_a_double_that_is_dropped_itself_drops_nothing():
    chain = [detections([36 + k, 10, 46 + k, 20], scores=[score]) for k, score in ((0, 0.5), (3, 0.6))]
    left = detections([36, 10, 46, 20], [42, 10, 52, 20], scores=[0.5, 0.9])  # the second drops the right one
    assert stitched_of((64, 96), left, chain[1]) == [[([36, 10, 46, 20], 0.5), ([42, 10, 52, 20], 0.9)]]
    assert stitched_of((64, 96), *chain) == [[([39, 10, 49, 20], 0.6)]]


def test_boxes_that_no_other_tile_sees_stay_as_the_network_gave_them():
    overlapping = detections([2, 2, 20, 20], [3, 2, 21, 20])
    assert len(stitched_of((64, 96), overlapping, detections())[0]) == 2


def test_tiles_without_a_cell_are_empty_rows():
    assert stitched_of((200, 64), *[detections()] * 6) == [[]] * 6
    nothing = list(stitched(zip(tiles((96, 64), TILED), [detections()] * 2, strict=True), 0.5))
    assert nothing[0].masks.shape == (0, 28, 28)


def test_masks_go_with_their_boxes():
    left, right = (
        detections([40, 10, 52, 20], scores=[0.6]),
        detections([41, 10, 53, 20], [80, 1, 90, 9], scores=[0.8, 0.7]),
    )
    (row,) = stitched(zip(tiles((64, 96), TILED), (left, right), strict=True), 0.5)
    assert torch.equal(row.masks[:, 0, 0], row.scores)
