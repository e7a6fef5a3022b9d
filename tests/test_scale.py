"""Files as tifffile and Pillow really write them; 0.25 µm a pixel is 4 pixels a µm, 40,000 a cm and 101,600 an inch."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg.scale import Scale, common_scale, mpp_of, read_scale, relative_zoom
from cellseg.tif import read_tif

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
APERIO = "Aperio Image Library v11.2.1\r\n46000x32914 [0,100 46000x32814] (256x256) JPEG/RGB Q=30|AppMag = 20|MPP = {}|"
HW3 = Path(__file__).parents[2] / "shared" / "data" / "hw3_sample" / "train" / "sample" / "image.tif"


def tif(folder, **options):
    path = folder / "image.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", **options)
    return path


def ome(folder, **metadata):
    return tif(folder, ome=True, metadata={"axes": "YXS", **metadata})


def picture(folder, kind, **options):
    path = folder / f"image.{kind}"
    Image.fromarray(RGB).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("size", "unit"),
    [(0.25, "µm"), (250, "nm"), (0.00025, "mm"), (2.5e-5, "cm"), (2.5e-7, "m"), (2500, "Å"), (0.25 / 25400, "in")],
)
def test_ome_xml_tells_the_physical_size_in_any_unit_of_length(tmp_path, size, unit):
    sizes = {"PhysicalSizeX": size, "PhysicalSizeY": size, "PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    assert mpp_of(ome(tmp_path, **sizes)) == pytest.approx(0.25)


def test_ome_xml_without_a_unit_is_in_microns_and_before_other_tags(tmp_path):
    path = tif(
        tmp_path,
        ome=True,
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        resolution=(72, 72),
        resolutionunit="INCH",
    )
    assert read_scale(path) == Scale(0.5, "0.5 µm a pixel by OME's PhysicalSize")


@pytest.mark.parametrize(
    "metadata", [{}, {"PhysicalSizeX": 0.5}, {"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1}]
)
def test_where_ome_xml_tells_no_length_the_resolution_does(tmp_path, metadata):
    path = tif(
        tmp_path,
        ome=True,
        metadata={"axes": "YXS", **metadata},
        resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
    )
    assert mpp_of(path) == pytest.approx(0.25)


def test_broken_ome_xml_tells_nothing(tmp_path):
    assert mpp_of(tif(tmp_path, description="<OME><Image><Pixels PhysicalSizeX='0.25'</OME>", metadata=None)) is None


@pytest.mark.parametrize("text", ["0.2522", ".2522", "2.522e-1"])
def test_aperio_s_description_tells_microns_per_pixel(tmp_path, text):
    path = tif(tmp_path, description=APERIO.format(text), metadata=None)
    assert read_scale(path) == Scale(0.2522, "0.2522 µm a pixel by Aperio's MPP")


@pytest.mark.parametrize(
    ("unit", "resolution"), [("um", 4), ("micron", 4), ("\\u00B5m", 4), ("mm", 4000), ("cm", 40_000), ("inch", 101_600)]
)
def test_imagej_tells_pixels_a_unit_of_its_own(tmp_path, unit, resolution):
    path = tif(tmp_path, imagej=True, resolution=(resolution, resolution), metadata={"unit": unit})
    assert mpp_of(path) == pytest.approx(0.25)


def test_imagej_without_a_unit_of_length_tells_nothing(tmp_path):
    for metadata in ({}, {"unit": "pixel"}):
        assert mpp_of(tif(tmp_path, imagej=True, resolution=(4, 4), metadata=metadata)) is None


@pytest.mark.parametrize(
    ("unit", "resolution"), [("INCH", 101_600), ("CENTIMETER", 40_000), ("MILLIMETER", 4000), ("MICROMETER", 4)]
)
def test_plain_tags_tell_pixels_an_inch_or_centimetre(tmp_path, unit, resolution):
    assert mpp_of(tif(tmp_path, resolution=(resolution, resolution), resolutionunit=unit)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("unit", "resolution", "found"),
    [
        ("INCH", 72, "352.8 x 352.8"),
        ("INCH", 96, "264.6 x 264.6"),
        ("CENTIMETER", 1, "1e+04 x 1e+04"),
        ("INCH", 1e7, "0.00254 x 0.00254"),
    ],
)
def test_what_editors_write_is_no_scale_and_the_reason_says_so(tmp_path, unit, resolution, found):
    scale = read_scale(tif(tmp_path, resolution=(resolution, resolution), resolutionunit=unit))
    assert scale == Scale(None, f"no scale: resolution {found} µm a pixel, which no microscope has (0.05 to 5.0)")


def test_a_file_without_tags_has_no_scale(tmp_path):
    for path in (tif(tmp_path), tif(tmp_path, resolution=(0, 0), resolutionunit="INCH"), picture(tmp_path, "png")):
        assert read_scale(path) == Scale(None, "no scale in the tags of its files")


def test_pixels_that_are_not_square_have_no_scale_and_are_doubtful(tmp_path):
    nearly = tif(tmp_path, resolution=(40_000, 41_000), resolutionunit="CENTIMETER")
    assert mpp_of(nearly) == pytest.approx((0.25 + 1e4 / 41_000) / 2, abs=1e-5)
    scale = read_scale(tif(tmp_path, resolution=(40_000, 20_000), resolutionunit="CENTIMETER"))
    assert scale == Scale(None, "no scale: resolution 0.25 x 0.5 µm a pixel, which is not square", doubtful=True)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_png_and_jpg_tell_their_density(tmp_path, kind):
    assert mpp_of(picture(tmp_path, kind, dpi=(50_800, 50_800))) == pytest.approx(0.5, rel=1e-3)
    assert mpp_of(picture(tmp_path, kind, dpi=(72, 72))) is None


def test_the_pixels_are_not_read(tmp_path):
    whole = tif(tmp_path, resolution=(4, 4), resolutionunit="MICROMETER").read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match="cut off"):
        read_tif(cut)
    assert mpp_of(cut) == 0.25
    png = picture(tmp_path, "png", dpi=(101_600, 101_600))
    png.write_bytes(png.read_bytes()[:-1000])
    assert mpp_of(png) == pytest.approx(0.25, rel=1e-3)


def test_an_image_too_large_for_pillow_has_no_scale_and_no_warning(tmp_path, monkeypatch, recwarn):
    path = picture(tmp_path, "png", dpi=(101_600, 101_600))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # 2,000 are warned of
    assert mpp_of(path) == pytest.approx(0.25, rel=1e-3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # over twice as many are refused
    assert mpp_of(path) is None
    assert not recwarn.list


@pytest.mark.parametrize("content", [b"II*\0", b"II*\0\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n", b"hello", b""])
def test_what_is_no_image_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken: expected") as caught:
        read_scale(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not HW3.exists(), reason="../shared/data is not here")
def test_the_competition_s_image_has_no_scale():
    assert mpp_of(HW3) is None


def known(**mpp):
    return {name: Scale(value, "") for name, value in mpp.items()}


def test_files_of_one_scale_have_their_median():
    found = common_scale({**known(a=0.25, b=0.26, c=0.2522), "d": Scale(None, "no scale")})
    assert found == Scale(0.2522, "0.2522 µm a pixel in the tags of 3 of 4 files")


def test_files_of_two_scales_have_none_and_both_are_named():
    found = common_scale(known(a=0.25, b=0.5, c=0.25))
    assert (found.mpp, found.doubtful) == (None, True)
    assert "a has 0.25 µm a pixel, b 0.5" in found.reason


def test_files_without_a_scale_tell_why_and_what_is_doubtful_first():
    plain = Scale(None, "no scale in the tags of its files")
    assert common_scale({"a": plain, "b": plain}) == plain
    assert common_scale({}) == plain
    doubtful = Scale(None, "not square", doubtful=True)
    assert common_scale({"a": plain, "b": doubtful}) == Scale(None, "b: not square", doubtful=True)


def test_an_image_at_half_the_magnification_is_zoomed_twice_as_much():
    factor, warning = relative_zoom(0.5, 0.25)
    assert factor == 2
    assert warning == "0.5 µm a pixel, where the training data has 0.25: zoomed by 2"


def test_a_scale_that_hardly_differs_is_made_up_for_in_silence():
    assert relative_zoom(0.26, 0.25) == (pytest.approx(1.04), "")
    assert relative_zoom(0.25, 0.25) == (1, "")


@pytest.mark.parametrize(("image", "factor"), [(1.1, 4.4), (0.05, 0.2)])
def test_a_scale_that_is_far_off_is_zoomed_and_not_trusted(image, factor):
    found, warning = relative_zoom(image, 0.25)
    assert found == pytest.approx(factor)
    assert f"zoomed by {factor:g}, which is too far for results to be trusted" in warning


def test_an_unknown_scale_is_warned_of_unless_both_are():
    assert relative_zoom(None, 0.25) == (
        1,
        "scale not known, taken for the 0.25 µm a pixel of the training data; give --mpp",
    )
    factor, warning = relative_zoom(0.5, None)
    assert factor == 1
    assert "the scale of the training data is not known: taken pixel for pixel" in warning
    assert relative_zoom(None, None) == (1, "")


@pytest.mark.parametrize("scales", [(0, 0.25), (-0.5, None), (0.25, float("nan"))])
def test_a_scale_that_cannot_be_is_refused(scales):
    with pytest.raises(ValueError, match="mpp: expected microns per pixel above 0, got"):
        relative_zoom(*scales)
