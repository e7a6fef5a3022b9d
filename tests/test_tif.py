import struct

import cv2
import numpy as np
import pytest
import tifffile

from cellseg.tif import read_tif, tif_size

rng = np.random.default_rng(0)
RGBA = rng.integers(0, 256, (30, 40, 4), dtype=np.uint8)
IDS = np.zeros((30, 40))
IDS[5:20, 5:20] = 3
LZW = {"compression": "lzw", "predictor": True, "photometric": "rgb", "extrasamples": ["unassalpha"]}


def written(path, pixels, **options):
    tifffile.imwrite(path, pixels, **options)
    return path


def with_directory_last(path):
    """The bytes of a float32 tif of 2 x 2 pixels whose last tag's value, or next-page offset, closes the file."""
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 2)]
    tags += [(279, 4, 16), (339, 3, 3)]
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    pixels = np.array([[1, 2], [3, 4]], np.float32).tobytes()
    content = b"II*\0" + struct.pack("<I", 24) + pixels + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RGBA, LZW),
        (RGBA, {**LZW, "rowsperstrip": 8}),
        (RGBA, {"photometric": "rgb", "extrasamples": ["unassalpha"], "tile": (16, 16)}),
        (IDS, {"metadata": None}),
        (IDS, {"metadata": None, "rowsperstrip": 2}),
        (IDS, {"compression": "zlib"}),
    ],
    ids=["lzw", "lzw strips", "tiles", "float64", "float64 strips", "zlib"],
)
def test_a_file_cut_anywhere_is_refused(tmp_path, pixels, options):
    path = written(tmp_path / "whole.tif", pixels, **options)
    assert np.array_equal(read_tif(path).pixels, pixels)
    whole = path.read_bytes()
    cut = tmp_path / "cut.tif"
    for length in (len(whole) - 1, len(whole) - 8, len(whole) * 9 // 10, len(whole) // 2, len(whole) // 10, 9, 8, 4, 0):
        cut.write_bytes(whole[:length])
        for read in (read_tif, tif_size):
            with pytest.raises(ValueError, match=r"cut\.tif: expected a whole tif"):
                read(cut)


def test_every_cut_of_a_file_that_ends_with_its_directory_is_refused(tmp_path):
    path = with_directory_last(tmp_path / "whole.tif")
    assert read_tif(path).pixels.tolist() == [[1, 2], [3, 4]]
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected a whole tif"):
            read_tif(path)


def test_a_file_whose_last_tag_is_cut_is_refused_though_its_pixels_are_whole(tmp_path):
    whole = cv2.imencode(".tif", RGBA)[1].tobytes()  # ends with the sample format, four numbers
    path = tmp_path / "a.tif"
    path.write_bytes(whole)
    assert np.array_equal(read_tif(path).pixels[:, :, 3], RGBA[:, :, 3])
    for length in range(len(whole) - 8, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"a file cut off after {length} bytes"):
            read_tif(path)


def test_strips_without_bytes_are_refused_rather_than_read_as_zeros(tmp_path):
    path = written(tmp_path / "sparse.tif", IDS, metadata=None, rowsperstrip=10, compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[0].tags["StripByteCounts"]
        tag.overwrite((0, *tag.value[1:]))
    with pytest.raises(ValueError, match="a part without pixels"):
        read_tif(path)


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb", "planarconfig": "separate"},
        {"imagej": True, "metadata": {"axes": "CYX"}},
        {"ome": True, "metadata": {"axes": "CYX"}},
    ],
    ids=["planar", "imagej", "ome"],
)
def test_planes_of_channels_become_samples(tmp_path, options):
    planes = np.moveaxis(RGBA[:, :, :3], -1, 0)
    path = written(tmp_path / "planes.tif", planes, **options)
    assert np.array_equal(read_tif(path).pixels, RGBA[:, :, :3])
    assert tif_size(path) == (30, 40)


def test_axes_of_length_one_are_dropped_but_not_height_and_width(tmp_path):
    assert read_tif(written(tmp_path / "a.tif", RGBA[:, :, :1])).pixels.shape == (30, 40)
    assert read_tif(written(tmp_path / "b.tif", RGBA[:1, :1, 0])).pixels.shape == (1, 1)
    assert read_tif(written(tmp_path / "c.tif", RGBA[:1, :, :3], photometric="rgb")).pixels.shape == (1, 40, 3)


def test_stacks_and_several_pictures_are_refused(tmp_path):
    stack = written(tmp_path / "stack.tif", np.zeros((7, 30, 40), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match=r"axes QYX of lengths \(7, 30, 40\)"):
        read_tif(stack)
    with tifffile.TiffWriter(tmp_path / "two.tif") as two:
        two.write(RGBA[:, :, 0])
        two.write(RGBA[:9, :9, 0])
    with pytest.raises(ValueError, match="found 2 pictures"):
        tif_size(tmp_path / "two.tif")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.tif: no such file"):
        read_tif(tmp_path / "none.tif")
