import numpy as np
import pytest

from cellseg.resampling import Part, network_size, resized


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "scale"), [((10, 21), 1.5), ((10, 21), 0.33), ((1, 2), 0.1)])
def test_a_network_size_is_rounded_and_never_nothing(size, scale):
    assert network_size(size, scale) == tuple(max(1, round(side * scale)) for side in size)


def test_an_image_of_the_wanted_size_stays_as_it_is():
    image = picture(7, 9)
    assert resized(image, (7, 9)) is image


@pytest.mark.parametrize("scale", [1.0, 1.5, 1.88, 3.1, 0.5, 0.37, 0.9])
@pytest.mark.parametrize("size", [(60, 83), (41, 100)])
def test_a_part_is_that_of_the_whole_to_a_grey_level_and_reads_no_more_than_it_needs(scale, size):
    image = picture(*size)
    new_hw = network_size(size, scale)
    whole = resized(image, new_hw).astype(int)
    for rows, columns in [
        (slice(0, new_hw[0]), slice(0, new_hw[1])),
        (slice(0, 9), slice(3, 12)),
        (slice(new_hw[0] - 8, new_hw[0]), slice(new_hw[1] // 3, new_hw[1])),
    ]:
        part = Part(size, new_hw, rows, columns)
        found = part.made_of(image[part.rows, part.columns]).astype(int)
        assert found.shape == whole[rows, columns].shape
        assert np.abs(found - whole[rows, columns]).max() <= 1
        assert part.rows.stop - part.rows.start <= (rows.stop - rows.start) / scale + 3
        assert part.columns.stop - part.columns.start <= (columns.stop - columns.start) / scale + 3


def test_an_image_of_one_pixel_has_parts():
    part = Part((1, 1), (3, 3), slice(1, 3), slice(0, 2))
    assert part.made_of(picture(1, 1)[part.rows, part.columns]).shape == (2, 2, 3)
