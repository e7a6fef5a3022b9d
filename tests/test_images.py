import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.images import image_size, read_image, recolored

RGB = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
RGBA = np.dstack([RGB, np.full((12, 17), 7, np.uint8)])
HW3 = Path(__file__).parents[2] / "shared" / "data" / "hw3_sample" / "train" / "sample" / "image.tif"


def written(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)
    return path


def png(path, pixels, kind=".png"):
    path.write_bytes(cv2.imencode(kind, pixels)[1].tobytes())
    return path


@pytest.mark.parametrize("pixels", [RGB, RGBA], ids=["RGB", "RGBA"])
def test_tif_and_png_give_the_same_true_colours_without_alpha(tmp_path, pixels):
    bgr_first = np.dstack([RGB[:, :, ::-1], pixels[:, :, 3:]])
    for path in (written(tmp_path / "a.tif", pixels, photometric="rgb"), png(tmp_path / "a.png", bgr_first)):
        image = read_image(path)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert np.array_equal(image, RGB)


def test_a_file_is_known_by_its_bytes_and_not_its_name(tmp_path):
    assert np.array_equal(read_image(png(tmp_path / "image.tif", RGB[:, :, ::-1])), RGB)


def test_a_jpg_keeps_red_red(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 2] = 255  # OpenCV writes B, G, R
    path = png(tmp_path / "red.jpg", red, ".jpg")
    assert np.abs(read_image(path).reshape(-1, 3).astype(int) - [255, 0, 0]).max() < 4
    assert image_size(path) == (16, 16)


def test_bgr_swaps_red_and_blue(tmp_path):
    path = written(tmp_path / "a.tif", RGBA, photometric="rgb")
    assert np.array_equal(read_image(path, "bgr"), RGB[:, :, ::-1])


def test_gray_is_the_luminance_of_the_true_colours():
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert recolored(primaries, color="gray").tolist() == [[[76] * 3, [150] * 3, [29] * 3]]  # .299, .587, .114
    assert recolored(primaries, "bgr", "gray").tolist() == [[[29] * 3, [150] * 3, [76] * 3]]


def test_unknown_orders_and_colours_are_refused():
    with pytest.raises(ValueError, match="channel_order: expected rgb or bgr, got 'brg'"):
        recolored(RGB, "brg")
    with pytest.raises(ValueError, match="color: expected rgb or gray, got 'grey'"):
        recolored(RGB, color="grey")


def test_sixteen_bits_are_scaled_over_all_channels_and_not_cut(tmp_path):
    steps = np.arange(1001, dtype=np.uint16) + 300  # percentile .1 is 301, 99.9 is 1299
    path = written(tmp_path / "steps.tif", steps[None])
    assert read_image(path)[0, [0, 1, 501, 999, 1000], 0].tolist() == [0, 0, 128, 255, 255]
    two = np.zeros((20, 20, 3), np.uint16)
    two[..., 0], two[..., 1] = 4000, 2008
    assert read_image(png(tmp_path / "two.png", two))[0, 0].tolist() == [0, 128, 255]  # B, G, R in the file


def test_floats_of_any_range_are_scaled_alike(tmp_path):
    ramp = np.linspace(-1, 1, 201, dtype=np.float32)[None]
    image = read_image(written(tmp_path / "ramp.tif", ramp))
    assert image[0, [0, 101, 200], 0].tolist() == [0, 129, 255]


def test_a_constant_image_of_sixteen_bits_is_black_and_a_lone_pixel_shines(tmp_path):
    flat = np.full((50, 50), 40_000, np.uint16)
    assert not read_image(written(tmp_path / "flat.tif", flat)).any()
    flat[3, 4] = 40_001
    lone = read_image(written(tmp_path / "lone.tif", flat))[:, :, 0]
    assert lone[3, 4] == 255
    assert lone.sum() == 255


def test_gray_bits_palettes_and_inverted_scales_become_rgb(tmp_path):
    bits = np.eye(9, dtype=bool)
    for photometric, ones in (("minisblack", 255), ("miniswhite", 0)):
        path = written(tmp_path / "bits.tif", bits, photometric=photometric)
        assert read_image(path)[0, :2].tolist() == [[ones] * 3, [255 - ones] * 3]
    gray = np.array([[0, 10, 255]], np.uint8)
    assert read_image(written(tmp_path / "gray.tif", gray))[0].tolist() == [[0] * 3, [10] * 3, [255] * 3]
    white = written(tmp_path / "white.tif", gray, photometric="miniswhite")
    assert read_image(white)[0, :, 0].tolist() == [255, 245, 0]
    table = np.zeros((3, 256), np.uint16)
    table[:, 10] = np.array([1, 128, 255]) * 257
    palette = written(tmp_path / "palette.tif", gray, photometric="palette", colormap=table)
    assert read_image(palette)[0].tolist() == [[0, 0, 0], [1, 128, 255], [0, 0, 0]]


@pytest.mark.parametrize(
    ("pixels", "options", "found"),
    [
        (RGBA, {"photometric": "separated"}, "colours stored as SEPARATED"),
        (RGB, {"photometric": "cielab"}, "colours stored as CIELAB"),
        (RGBA[:, :, :2], {"photometric": "minisblack", "planarconfig": "contig"}, r"shape \(12, 17, 2\)"),
        (np.dstack([RGBA, RGB[:, :, 0]]), {"photometric": "minisblack", "planarconfig": "contig"}, r"\(12, 17, 5\)"),
        (RGB[:, :, 0].astype(np.int32), {}, "samples of type int32"),
        (np.array([[0, np.nan]]), {}, "NaN or infinite"),
        (np.array([[0, np.inf]], np.float32), {}, "NaN or infinite"),
    ],
)
def test_what_is_no_plain_image_is_refused_by_name(tmp_path, pixels, options, found):
    path = written(tmp_path / "odd.tif", pixels, **options)
    with pytest.raises(ValueError, match=rf"odd\.tif: expected .* found .*{found}.*; ") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_a_cut_png_or_jpg_is_refused(tmp_path, kind):
    path = png(tmp_path / f"a{kind}", RGB, kind)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) * 9 // 10, len(whole) // 2, len(whole) // 10, 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"a{kind}: expected a tif, png or jpg"):
            read_image(path)


def test_files_that_are_no_image_are_refused(tmp_path):
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.png").write_text("hello")
    for name, found in (("empty.tif", "an empty file"), ("text.png", "start with b'hell'"), ("", "a folder")):
        for read in (read_image, image_size):
            with pytest.raises(ValueError, match=f"found .*{found}"):
                read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"gone\.tif: no such file"):
        image_size(tmp_path / "gone.tif")


def test_a_size_comes_from_the_header_alone(tmp_path):
    path = png(tmp_path / "a.png", RGB)
    path.write_bytes(path.read_bytes()[:60])  # the pixels are gone
    assert image_size(path) == (12, 17)
    path.write_bytes(path.read_bytes()[:20] + struct.pack(">I", 33))
    with pytest.raises(ValueError, match="a broken header"):
        image_size(path)
    assert image_size(written(tmp_path / "a.tif", RGB)) == (12, 17)


@pytest.mark.skipif(not HW3.exists(), reason="the genuine sample is not here")
def test_the_genuine_image_is_read_and_swapped_on_demand():
    image, swapped = read_image(HW3), read_image(HW3, "bgr")
    assert image.shape == (397, 482, 3) == (*image_size(HW3), 3)
    assert np.array_equal(swapped, image[:, :, ::-1])
