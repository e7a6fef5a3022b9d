from dataclasses import replace

import numpy as np
import pytest
import tifffile

from cellseg import slides
from cellseg.config import PredictConfig
from cellseg.images import read_image
from cellseg.slides import Slide, open_image, parts_of
from cellseg.tiles import tiles

SMOOTH = np.add.outer(np.arange(203), np.arange(157)).astype(np.uint8)  # JPEG keeps it nearly
RGB = np.dstack([SMOOTH, SMOOTH // 2, 255 - SMOOTH])
RGBA = np.dstack([RGB, np.full_like(SMOOTH, 9)])
LZW = {"compression": "lzw", "predictor": True}
LAYOUTS = {
    "tiles": {"tile": (32, 48)},
    "lzw tiles": {"tile": (64, 64), **LZW},
    "deflate tiles": {"tile": (64, 64), "compression": "zlib"},
    "deflate strips": {"rowsperstrip": 10, "compression": "zlib"},
    "lzw strips": {"rowsperstrip": 7, **LZW},
    "one strip": {},
    "strips": {"rowsperstrip": 16},
    "bigtiff": {"tile": (64, 64), "compression": "zlib", "bigtiff": True},
    "big end first": {"rowsperstrip": 16, "byteorder": ">"},
}
WINDOWS = [(slice(0, 203), slice(0, 157)), (slice(60, 130), slice(47, 65)), (slice(202, 203), slice(156, 157))]


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(slides, "PLAIN_PART", 5000)
    monkeypatch.setattr(slides, "LARGE", 0)


def written(path, pixels, **options):
    photometric = options.pop("photometric", "rgb" if pixels.ndim == 3 else "minisblack")
    extra = {"extrasamples": ["unassalpha"]} if pixels.shape[2:] == (4,) else {}
    tifffile.imwrite(path, pixels, photometric=photometric, **extra, **options)
    return path


def assert_windows_are_slices(path, **options):
    image, whole = open_image(path, **options), read_image(path, **options)
    assert isinstance(image, Slide)
    assert image.shape == whole.shape
    for window in WINDOWS:
        assert np.array_equal(image[window], whole[window])


@pytest.mark.parametrize("pixels", [RGB, RGBA, SMOOTH], ids=["rgb", "rgba", "gray"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_window_is_the_slice_of_the_whole(tmp_path, pixels, layout):
    assert_windows_are_slices(written(tmp_path / "a.tif", pixels, **LAYOUTS[layout]))


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
@pytest.mark.parametrize("pixels", [RGB, SMOOTH], ids=["rgb", "gray"])
def test_a_window_of_jpeg_parts_is_the_slice_of_the_whole(tmp_path, pixels, layout):
    path = written(tmp_path / "a.tif", pixels, compression="jpeg", **layout)
    assert_windows_are_slices(path)
    true = RGB if pixels.ndim == 3 else SMOOTH[:, :, None]
    assert np.median(np.abs(open_image(path)[0:203, 0:157] - true.astype(int))) < 3


def test_orders_and_colours_are_those_of_read_image(tmp_path):
    path = written(tmp_path / "a.tif", RGBA, tile=(64, 64))
    assert_windows_are_slices(path, channel_order="bgr")
    assert_windows_are_slices(path, channel_order="bgr", color="gray")
    assert_windows_are_slices(written(tmp_path / "b.tif", SMOOTH, tile=(64, 64), photometric="miniswhite"))


def test_small_images_deep_ones_and_other_layouts_are_read_whole(tmp_path, monkeypatch):
    planes = np.moveaxis(RGB, -1, 0)
    for number, (pixels, options) in enumerate(
        [
            (RGB.astype(np.uint16), {"tile": (64, 64)}),
            (SMOOTH.astype(np.float32), {}),
            (planes, {"planarconfig": "separate"}),
        ]
    ):
        path = written(
            tmp_path / f"{number}.tif",
            pixels,
            **{"photometric": "rgb" if pixels.ndim == 3 else "minisblack", **options},
        )
        assert np.array_equal(open_image(path), read_image(path))
        assert isinstance(open_image(path), np.ndarray)
    path = written(tmp_path / "a.tif", RGB, tile=(64, 64))
    monkeypatch.setattr(slides, "LARGE", 203 * 157)
    assert isinstance(open_image(path), np.ndarray)


def test_one_compressed_part_as_large_as_the_image_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "LARGEST_PART", RGB.nbytes - 1)
    path = written(tmp_path / "a.tif", RGB, compression="zlib", rowsperstrip=203)
    assert isinstance(open_image(path), np.ndarray)


def counting(parts):
    """The parts, and the list of the numbers of those that are decoded."""
    numbers = []

    def decode(content, number):
        numbers.append(number)
        return parts.decode(content, number)

    return replace(parts, decode=decode), numbers


@pytest.mark.parametrize("layout", ["deflate tiles", "deflate strips", "one strip"])
def test_only_the_parts_under_a_window_are_decoded(tmp_path, layout):
    path = written(tmp_path / "a.tif", RGB, **LAYOUTS[layout])
    parts, numbers = counting(parts_of(path))
    Slide(path, parts)[70:90, 64:128]
    assert numbers == {"deflate tiles": [4], "deflate strips": [7, 8], "one strip": [7, 8]}[layout]  # 3 across; 10 rows


def test_strips_are_decoded_once_for_a_row_of_tiles(tmp_path):
    path = written(tmp_path / "a.tif", RGB, rowsperstrip=8, compression="zlib")
    parts, numbers = counting(parts_of(path))
    slide = Slide(path, parts, cache_bytes=1)
    for tile in tiles(slide.shape[:2], PredictConfig(tile=48, overlap=16)):
        tile.read(slide)
    assert sorted(set(numbers)) == list(range(26))
    assert len(numbers) < 2 * 26  # again only where two rows of tiles overlap


def test_the_cache_stays_within_its_bytes(tmp_path):
    path = written(tmp_path / "a.tif", RGB, tile=(32, 32))
    slide = Slide(path, parts_of(path), cache_bytes=5 * 32 * 32 * 3)
    for y in range(0, 200, 20):
        assert np.array_equal(slide[y : y + 20, 0:157], RGB[y : y + 20])
        kept = list(slide._kept.values())
        assert sum(each.nbytes for each in kept) == slide._kept_bytes <= slide.cache_bytes
        assert kept


def test_a_pyramid_is_read_at_its_full_size(tmp_path):
    for name, options in (("sub", {"subifds": 1}), ("chain", {})):
        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as file:
            file.write(RGB, photometric="rgb", tile=(64, 64), **options)
            file.write(RGB[::2, ::2], photometric="rgb", tile=(64, 64), subfiletype=1)
        assert_windows_are_slices(path)
        assert np.array_equal(read_image(path), RGB)


def test_a_cut_file_and_one_of_two_pictures_are_refused_at_opening(tmp_path):
    path = written(tmp_path / "cut.tif", RGB, tile=(64, 64), compression="zlib")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.tif: expected a whole tif of one picture, found a file cut off after"):
        open_image(path)
    with tifffile.TiffWriter(tmp_path / "two.tif") as two:
        two.write(RGB, photometric="rgb")
        two.write(RGB[:90], photometric="rgb")
    with pytest.raises(ValueError, match="found 2 pictures"):
        open_image(tmp_path / "two.tif")
    with pytest.raises(FileNotFoundError, match=r"none\.tif: no such file"):
        open_image(tmp_path / "none.tif")


def test_a_damaged_part_is_refused_in_one_line_by_the_window_that_needs_it(tmp_path):
    path = written(tmp_path / "a.tif", RGB, tile=(64, 64), compression="zlib")
    parts = parts_of(path)
    content = bytearray(path.read_bytes())
    content[parts.offsets[4] : parts.offsets[4] + 20] = b"\xff" * 20
    path.write_bytes(content)
    slide = open_image(path)
    assert np.array_equal(slide[0:60, 0:60], RGB[0:60, 0:60])
    with pytest.raises(ValueError, match=r"a\.tif: expected a whole tif .* found ") as caught:
        slide[60:130, 60:130]
    assert "\n" not in str(caught.value)


def test_colours_that_are_none_are_refused(tmp_path):
    path = written(tmp_path / "lab.tif", RGB, photometric="cielab", tile=(64, 64))
    with pytest.raises(ValueError, match="colours stored as CIELAB"):
        open_image(path)
