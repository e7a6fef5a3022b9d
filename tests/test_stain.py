import numpy as np
import pytest

from cellseg.stain import EOSIN, HAEMATOXYLIN, channel_order, density, red_over_blue, tissue_density, unmixed


def scene(nucleus, rest):
    image = np.full((6, 6, 3), rest, np.uint8)
    nuclei = np.zeros((6, 6), bool)
    nuclei[2:4, 2:4] = True
    image[nuclei] = nucleus
    return image, nuclei


def test_density_is_the_logarithm_of_what_is_missing_from_white():
    image, nuclei = scene((127, 255, 63), (255, 255, 255))
    assert density(image, nuclei) == pytest.approx([np.log(2), 0, np.log(4)])
    assert density(image, ~nuclei).tolist() == [0, 0, 0]


def test_tissue_is_what_is_not_white_and_a_white_image_is_taken_whole():
    image, _ = scene((127, 127, 63), (255, 255, 255))
    assert tissue_density(image) == pytest.approx([np.log(2), np.log(2), np.log(4)])
    assert tissue_density(np.full_like(image, 255)).tolist() == [0, 0, 0]


def test_the_channel_in_which_nuclei_stand_out_is_red():
    purple = scene((127, 60, 200), (255, 255, 255))
    assert red_over_blue(*purple) == pytest.approx(np.log(2) - np.log(256 / 201))
    swapped = scene((200, 60, 127), (255, 255, 255))
    assert red_over_blue(*swapped) == pytest.approx(-red_over_blue(*purple))


@pytest.mark.parametrize(
    ("image", "nuclei"),
    [
        scene((90, 90, 90), (230, 230, 230)),
        scene((10, 10, 250), (5, 5, 5)),
        (scene((127, 60, 200), (255,) * 3)[0], np.zeros((6, 6), bool)),
        (scene((127, 60, 200), (255,) * 3)[0], np.ones((6, 6), bool)),
    ],
    ids=["gray", "fluorescent", "no nuclei", "nothing but nuclei"],
)
def test_some_images_do_not_tell(image, nuclei):
    assert red_over_blue(image, nuclei) is None


def test_the_median_of_the_images_decides():
    order, reason = channel_order([-0.3, None, -0.1, 0.9])
    assert order == "bgr"
    assert "0.10" in reason
    assert "2 of 3 images" in reason
    assert channel_order([0.3, -0.1, 0.2])[0] == "rgb"


def test_without_evidence_the_order_is_rgb():
    assert channel_order([None, None]) == ("rgb", "rgb: none of 2 images tells red from blue in its nuclei")


def test_two_stains_are_unmixed_and_what_is_neither_is_left_out():
    haematoxylin, eosin = (np.array(each) / np.linalg.norm(each) for each in (HAEMATOXYLIN, EOSIN))
    other = np.cross(haematoxylin, eosin)
    amounts = unmixed(np.stack([haematoxylin, 2 * eosin, haematoxylin + 3 * eosin + other, 0 * eosin]))
    assert amounts == pytest.approx(np.array([[1, 0], [0, 2], [1, 3], [0, 0]]), abs=1e-12)
    assert unmixed(np.zeros((0, 3))).shape == (0, 2)
