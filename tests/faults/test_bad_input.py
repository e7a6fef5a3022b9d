"""Files as they should not be: each is read, or named in one line; none is passed over silently, and none is a bomb."""

import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg.batch import jobs_of
from cellseg.config import DatasetConfig
from cellseg.dataset import open_dataset
from cellseg.images import read_image
from cellseg.slides import open_image
from cellseg.survey import survey

SIZE = (48, 64)


def picture(size_hw=SIZE, samples=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 200, (*size_hw, samples)).astype(dtype)


def cells(size_hw=SIZE, dtype=np.float64):
    """A label map of 2 x 2 cells of 8 pixels."""
    label_map = np.zeros(size_hw, dtype)
    for number in range(4):
        y, x = 6 + 20 * (number // 2), 8 + 24 * (number % 2)
        label_map[y : y + 8, x : x + 8] = number + 1
    return label_map


def with_value(value, dtype=np.float64):
    label_map = cells(dtype=dtype)
    label_map[0, 0] = value
    return label_map


def image_of(**options):
    """A way to write another image.tif."""
    pixels = options.pop("pixels", None)
    options = {"photometric": "rgb", **options}
    return lambda place: tifffile.imwrite(place / "image.tif", picture() if pixels is None else pixels, **options)


def class_of(label_map, number=1, **options):
    return lambda place: tifffile.imwrite(place / f"class{number}.tif", label_map, metadata=None, **options)


def content_of(name, change):
    """A way to change the bytes of a file."""
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes()))


def gone(name):
    return lambda place: (place / name).unlink()


def linked(name, target):
    def link(place):
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(target)

    return link


def resized(size_hw, label_map):
    """A way to write an image and a label map of another size."""

    def write(place):
        tifffile.imwrite(place / "image.tif", picture(size_hw), photometric="rgb")
        tifffile.imwrite(place / "class1.tif", label_map, metadata=None)

    return write


def many():
    """3,000 cells of 2 x 2 pixels in 200 x 200."""
    label_map = np.zeros((200, 200))
    for number in range(3000):
        y, x = 3 * (number // 60), 3 * (number % 60)
        label_map[y : y + 2, x : x + 2] = number + 1
    return label_map


def border():
    label_map = np.zeros(SIZE)
    label_map[:4, :4], label_map[-4:, -4:], label_map[20:24, -1] = 1, 2, 3
    return label_map


def bomb_tif(place):
    """A few kilobytes that claim 200,000 x 200,000 pixels."""
    strip = zlib.compress(bytes(10_000))
    tifffile.imwrite(
        place / "image.tif",
        iter([strip] * 1000),
        shape=(200_000, 200_000, 3),
        dtype=np.uint8,
        photometric="rgb",
        compression="zlib",
        rowsperstrip=200,
    )


def folder_named(name):
    def make(place):
        (place / name).unlink(missing_ok=True)
        (place / name).mkdir()

    return make


WORKS = {
    "16-bit image": image_of(pixels=picture(dtype=np.uint16) * 200),
    "float image": image_of(pixels=picture().astype(np.float32) / 255),
    "one channel": image_of(pixels=picture()[:, :, 0], photometric="minisblack"),
    "inverted": image_of(pixels=picture()[:, :, 0], photometric="miniswhite"),
    "alpha": image_of(pixels=picture(samples=4), extrasamples=["unassalpha"]),
    "palette": image_of(
        pixels=picture()[:, :, 0], photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256) * 80
    ),
    "planes": image_of(pixels=picture().transpose(2, 0, 1).copy(), planarconfig="separate"),
    "big-endian": image_of(byteorder=">"),
    "BigTIFF": image_of(bigtiff=True),
    "tiles, compressed": image_of(tile=(16, 16), compression="zlib"),
    "ids over 65,535": class_of(with_value(70_000)),
    "uint8 ids": class_of(cells(dtype=np.uint8)),
    "int64 ids": class_of(cells(dtype=np.int64)),
    "one-pixel cell": class_of(with_value(9)),
    "cells on the border": class_of(border()),
    "no cells at all": class_of(np.zeros(SIZE)),
    "no class file": gone("class1.tif"),
    "overlapping classes": class_of(cells(), number=2),
    "1 x 1": resized((1, 1), np.ones((1, 1))),
    "1 x 5000": resized((1, 5000), np.ones((1, 5000))),
    "5000 x 1": resized((5000, 1), np.ones((5000, 1))),
    "3,000 cells": resized((200, 200), many()),
    "one cell everywhere": class_of(np.ones(SIZE)),
    "a link": lambda place: linked("image.tif", (place.parent / "good" / "image.tif").resolve())(place),
}
REFUSED = {
    "image cut off": ("image.tif", content_of("image.tif", lambda content: content[: len(content) // 2])),
    "image cut off by a byte": ("image.tif", content_of("image.tif", lambda content: content[:-1])),
    "image of 3 bytes": ("image.tif", content_of("image.tif", lambda content: content[:3])),
    "image empty": ("image.tif", content_of("image.tif", lambda content: b"")),
    "image of text": ("image.tif", content_of("image.tif", lambda content: b"an image, honestly")),
    "image of zeros": ("image.tif", content_of("image.tif", lambda content: bytes(len(content)))),
    "image with a torn header": ("image.tif", content_of("image.tif", lambda content: content[:8] + bytes(5000))),
    "image missing": ("image.tif", gone("image.tif")),
    "image a folder": ("image.tif", folder_named("image.tif")),
    "image a dangling link": ("image.tif", linked("image.tif", "nowhere.tif")),
    "image a link to itself": ("image.tif", linked("image.tif", "image.tif")),
    "5 channels": ("image.tif", image_of(pixels=picture(samples=5), photometric="minisblack", planarconfig="contig")),
    "2 channels": ("image.tif", image_of(pixels=picture(samples=2), photometric="minisblack", planarconfig="contig")),
    "CMYK": ("image.tif", image_of(pixels=picture(samples=4), photometric="separated")),
    "32-bit integers": ("image.tif", image_of(pixels=picture(dtype=np.int32))),
    "NaN in an image": ("image.tif", image_of(pixels=picture().astype(np.float32) * np.float32("nan"))),
    "infinity in an image": ("image.tif", image_of(pixels=np.full((*SIZE, 3), np.inf, np.float32))),
    "complex image": ("image.tif", image_of(pixels=picture()[:, :, 0].astype(np.complex64), photometric="minisblack")),
    "two pages": ("image.tif", image_of(pixels=np.stack([picture(), picture()]))),
    "a stack of 7": ("image.tif", image_of(pixels=picture(samples=7).transpose(2, 0, 1), photometric="minisblack")),
    "a bomb": ("image.tif", bomb_tif),
    "labels cut off": ("class1.tif", content_of("class1.tif", lambda content: content[:-100])),
    "labels empty": ("class1.tif", content_of("class1.tif", lambda content: b"")),
    "labels of text": ("class1.tif", content_of("class1.tif", lambda content: b"1 2 3")),
    "labels of another size": ("class1.tif", class_of(cells((48, 63)))),
    "labels transposed": ("class1.tif", class_of(cells().T.copy())),
    "labels in colour": ("class1.tif", class_of(picture(), photometric="rgb")),
    "NaN in labels": ("class1.tif", class_of(with_value(np.nan))),
    "infinity in labels": ("class1.tif", class_of(with_value(np.inf))),
    "negative id": ("class1.tif", class_of(with_value(-1))),
    "fractional id": ("class1.tif", class_of(with_value(2.5))),
    "id beyond int32": ("class1.tif", class_of(with_value(2.0**33))),
    "id beyond int32, as int64": ("class1.tif", class_of(with_value(2**40, np.int64))),
    "complex labels": ("class1.tif", class_of(cells(dtype=np.complex64))),
    "labels a folder": ("class1.tif", folder_named("class1.tif")),
    "labels a dangling link": ("class1.tif", linked("class1.tif", "nowhere.tif")),
    "a class too many": ("class5.tif", class_of(cells(), number=5)),
    "class 0": ("class0.tif", class_of(cells(), number=0)),
    "another file": ("notes.txt", lambda place: (place / "notes.txt").write_text("cells look fine")),
}


@pytest.fixture
def place(tmp_path):
    """The folder of one of two good training images; a space and a letter beyond ASCII are in every path."""
    for name in ("good", "spoilt"):
        folder = tmp_path / "mes données" / "train" / name
        folder.mkdir(parents=True)
        tifffile.imwrite(folder / "image.tif", picture(), photometric="rgb")
        tifffile.imwrite(folder / "class1.tif", cells(), metadata=None)
    return folder


@pytest.mark.parametrize("change", WORKS.values(), ids=WORKS)
def test_what_is_unusual_is_read(place, change):
    change(place)
    root = place.parents[1]
    data = open_dataset(root, DatasetConfig(channel_order="rgb"))
    assert [data.image(index).shape for index in range(2)] == [(*each.size_hw, 3) for each in data.records]
    annotated = sum(len(np.unique(tifffile.imread(path))) - 1 for path in place.glob("class*.tif"))
    assert data.cell_counts[1].sum() in (annotated, annotated + 1)  # with no background there is no 0 among the ids
    assert not survey(root, DatasetConfig(channel_order="rgb")).broken


@pytest.mark.parametrize(("name", "change"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_named_in_one_line_and_listed_by_inspect(place, name, change):
    change(place)
    root = place.parents[1]
    with pytest.raises((ValueError, OSError)) as caught:
        open_dataset(root, DatasetConfig(channel_order="rgb"))
    assert str(caught.value).startswith(f"{place / name}: ")
    assert "\n" not in str(caught.value)
    (line,) = survey(root, DatasetConfig(channel_order="rgb")).broken
    assert line == str(caught.value)


@pytest.mark.parametrize("size", [0, 2])
def test_a_folder_without_images_is_told(tmp_path, size):
    (tmp_path / "train").mkdir()
    for number in range(size):
        (tmp_path / "train" / f"empty{number}").mkdir()
    with pytest.raises(FileNotFoundError, match="train") as caught:
        open_dataset(tmp_path, DatasetConfig())
    assert "\n" not in str(caught.value)


def png_bomb(path):
    """A png of 100,000 x 100,000 pixels, in its header."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts))


def chunk(kind, body):
    """A part of a png, with its length and check sum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PICTURES = {
    "png cut off": lambda path: (Image.fromarray(picture()).save(path, "PNG"), os.truncate(path, 300)),
    "png bomb": png_bomb,
    "jpg cut off": lambda path: (Image.fromarray(picture()).save(path, "JPEG"), os.truncate(path, 900)),
    "gif": lambda path: Image.fromarray(picture()).save(path, "GIF"),
    "webp": lambda path: path.write_bytes(b"RIFF\0\0\0\0WEBPVP8 "),
    "one byte": lambda path: path.write_bytes(b"\0"),
    "png with a broken check sum": lambda path: (
        Image.fromarray(picture()).save(path, "PNG"),
        path.write_bytes(path.read_bytes()[:20] + b"\xff" + path.read_bytes()[21:]),
    ),
}


@pytest.mark.parametrize("write", PICTURES.values(), ids=PICTURES)
def test_a_picture_to_predict_that_cannot_be_read_is_named_in_one_line(tmp_path, write):
    path = tmp_path / "une lame.png"
    write(path)
    for read in (read_image, open_image):
        with pytest.raises(ValueError, match="expected") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_folder_that_links_to_itself_is_searched_once(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [job.path.name for job in jobs_of([tmp_path], tmp_path / "out")] == ["a.png"]


def test_two_links_to_one_image_are_two_images(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert [job.name for job in jobs_of([tmp_path], tmp_path / "out")] == ["a", "b"]
