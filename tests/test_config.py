import pytest

from cellseg.config import DatasetConfig, PredictConfig
from cellseg.recipes import RECIPES


def test_the_reference_normalises_twice():
    model = RECIPES["reference"]().model
    for pixel in (0.0, 0.3, 1.0):
        once = (pixel - 0.485) / 0.229
        twice = (once - 0.485) / 0.229
        assert (pixel - model.image_mean[0]) / model.image_std[0] == pytest.approx(twice)


def test_a_short_side_scales_by_size_and_a_zoom_does_not():
    assert PredictConfig(zoom=1.5).scale_of((82, 35)) == 1.5
    assert PredictConfig(short_side=800).scale_of((400, 500)) == 2.0
    assert PredictConfig(short_side=800, long_side=1333).scale_of((400, 1333)) == 1.0


def test_what_scales_to_a_short_side_is_not_zoomed_and_all_else_is():
    assert PredictConfig(zoom=1.5).zoomed(2.0).zoom == 3.0
    assert PredictConfig().zoomed(2.0).zoom == 2.0
    assert PredictConfig(short_side=800).zoomed(2.0) == PredictConfig(short_side=800)


@pytest.mark.parametrize("row", [(1.0, 0.0, 0.0), (0.0, 1.0, 1.0, 1.0), (-1.0, 0.0, 0.0, 0.0)])
def test_a_calibration_that_turns_scores_round_or_misses_a_number_is_refused(row):
    with pytest.raises(ValueError, match=r"predict\.calibration: class 2: expected 4 numbers, the first above 0"):
        PredictConfig(calibration=((1.0, 0.0, 0.0, 0.0), row))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 1}, "folds: expected 0 or at least 2, got 1"),
        ({"folds": -2}, "folds: expected 0 or at least 2, got -2"),
        ({"folds": 5, "fold": 5}, "fold: expected 0 to 4 with dataset.folds 5, got 5"),
        ({"fold": 1}, "fold: expected 0 to 0 with dataset.folds 0, got 1"),
    ],
)
def test_folds_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DatasetConfig(**values)


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a", "")])
def test_class_names_that_tell_no_classes_apart_are_refused(names):
    with pytest.raises(ValueError, match=r"dataset\.class_names: expected a name for each class, none twice, got \("):
        DatasetConfig(class_names=names)


def test_no_zoom_at_all_is_refused():
    with pytest.raises(ValueError, match=r"predict\.zooms: expected at least one factor, got none"):
        PredictConfig(zooms=())
