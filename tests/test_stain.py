import numpy as np
import pytest

from cellseg.stain import channel_order, density, red_over_blue, tissue_density


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
