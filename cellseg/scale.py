"""How large a pixel is, from the headers of image files, and what another size means for a network.

Scales are in microns per pixel, `mpp`: about .25 where a microscope says 40x, .5 at 20x.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.etree import ElementTree  # what it parses, see _of_ome  # nosec B405

import tifffile
from PIL import Image

from cellseg.images import kind_of
from cellseg.tif import damaged

MICROSCOPE = (0.05, 5.0)
"""microns per pixel: other values, such as those of 72 dpi, were written by an editor and mean nothing"""
SQUARE = 1.05
"""a pixel's longer side by its shorter one, at most"""
ALIKE = 1.1
"""two scales by one another, up to which they are one"""
TRUSTED = 4.0
"""a zoom that makes up for another scale by more, up or down, is not to be trusted"""
MICRONS = {
    **{"pm": 1e-6, "å": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6},
    **dict.fromkeys(("µm", "um", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1.0),
    **dict.fromkeys(("in", "inch", "inches"), 25_400.0),
}
"""of each unit of length that tags name, in lower case"""
RESOLUTION_UNITS = {2: MICRONS["inch"], 3: MICRONS["cm"], 4: MICRONS["mm"], 5: MICRONS["um"]}
"""microns of tif's ResolutionUnit; 1 is no unit"""


class Scale(NamedTuple):
    """What is known of the size of a pixel."""

    mpp: float | None
    """None where it is not known"""
    reason: str
    """a sentence that says where it comes from, or why it is not known"""
    doubtful: bool = False
    """the files contradict themselves or each other: to be warned of"""


UNKNOWN = Scale(None, "no scale in the tags of its files")


class _Claim(NamedTuple):
    tags: str
    x: float
    y: float  # microns per pixel


def mpp_of(path: Path) -> float | None:
    """Microns per pixel of a tif, png or jpg; None where its header has none that a microscope could have."""
    return read_scale(path).mpp


def read_scale(path: Path) -> Scale:
    """The scale of a tif, png or jpg from its header; the pixels are not read.

    Raises FileNotFoundError, and ValueError for a file that is no such image.
    """
    refused = []
    for claim in _of_tif(path) if kind_of(path) == "tif" else _of_picture(path):
        scale = _judged(claim)
        if scale.mpp is not None:
            return scale
        refused.append(scale)
    return refused[0] if refused else UNKNOWN


def common_scale(scales: Mapping[str, Scale]) -> Scale:
    """The median scale of files, by name, that are one data set; unknown where they differ by more than a tenth."""
    known = {name: scale.mpp for name, scale in scales.items() if scale.mpp is not None}
    if not known:
        for name, scale in scales.items():
            if scale.doubtful:
                return scale._replace(reason=f"{name}: {scale.reason}")
        return next(iter(scales.values()), UNKNOWN)
    finest, coarsest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[coarsest] > ALIKE * known[finest]:
        found = f"{finest} has {known[finest]:.4g} µm a pixel, {coarsest} {known[coarsest]:.4g}"
        return Scale(None, f"no scale, as the files differ: {found}; all are taken pixel for pixel", doubtful=True)
    mpp = median(known.values())
    return Scale(mpp, f"{mpp:.4g} µm a pixel in the tags of {len(known)} of {len(scales)} files")


def relative_zoom(image_mpp: float | None, trained_mpp: float | None) -> tuple[float, str]:
    """What the zoom of a network is multiplied by for an image of another scale, and a warning, or "".

    The factor is 1 where a scale is not known; there is no warning where neither is. Raises ValueError for a scale
    that is not above 0.
    """
    for mpp in (image_mpp, trained_mpp):
        if mpp is not None and not mpp > 0:
            raise ValueError(f"mpp: expected microns per pixel above 0, got {mpp}")
    if image_mpp is None or trained_mpp is None:
        return 1.0, _unknown(image_mpp, trained_mpp)
    factor = image_mpp / trained_mpp
    if 1 / ALIKE <= factor <= ALIKE:
        return factor, ""
    said = f"{image_mpp:.4g} µm a pixel, where the training data has {trained_mpp:.4g}: zoomed by {factor:.3g}"
    far = not 1 / TRUSTED <= factor <= TRUSTED
    return factor, f"{said}, which is too far for results to be trusted; is the scale right?" if far else said


def _unknown(image_mpp: float | None, trained_mpp: float | None) -> str:
    if trained_mpp is not None:
        return f"scale not known, taken for the {trained_mpp:.4g} µm a pixel of the training data; give --mpp"
    if image_mpp is not None:
        return f"{image_mpp:.4g} µm a pixel, but the scale of the training data is not known: taken pixel for pixel"
    return ""


def _judged(claim: _Claim) -> Scale:
    shorter, longer = sorted((claim.x, claim.y))
    least, most = MICROSCOPE
    found = f"{claim.tags} {claim.x:.4g} x {claim.y:.4g} µm a pixel"
    if not (least <= shorter and longer <= most):
        return Scale(None, f"no scale: {found}, which no microscope has ({least} to {most})")
    if longer > SQUARE * shorter:
        return Scale(None, f"no scale: {found}, which is not square", doubtful=True)
    mpp = round((claim.x + claim.y) / 2, 5)
    return Scale(mpp, f"{mpp:.4g} µm a pixel by {claim.tags}")


def _of_tif(path: Path) -> Iterator[_Claim]:
    """What the first page of a tif claims, by the most telling kind of tag first."""
    try:
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            description, imagej = page.description, tif.imagej_metadata or {}
            across, down = page.get_resolution()  # pixels per unit
            unit = page.tags.valueof("ResolutionUnit", default=2)
    except Exception as error:  # tifffile raises errors of a dozen kinds
        raise damaged(path, error) from error
    if description.rstrip().endswith("OME>"):
        yield from _of_ome(description)
    if found := re.search(r"\bMPP\s*=\s*(\d*\.?\d+(?:[eE][-+]?\d+)?)", description):
        yield _Claim("Aperio's MPP", float(found[1]), float(found[1]))
    imagej_unit, tif_unit = _microns(str(imagej.get("unit"))), RESOLUTION_UNITS.get(unit, 0.0)
    for tags, microns in (("ImageJ's resolution", imagej_unit), ("resolution", tif_unit)):
        if microns and across > 0 and down > 0:
            yield _Claim(tags, microns / across, microns / down)


def _of_ome(description: str) -> Iterator[_Claim]:
    """The physical size of the first picture of an OME-XML text, which may be malformed."""
    try:
        # expat refuses texts that grow without bounds, and reads no other file
        pixels = ElementTree.fromstring(description).find(".//{*}Pixels")  # nosec B314
        given = {} if pixels is None else pixels.attrib
        x, y = (
            float(given[f"PhysicalSize{axis}"]) * _microns(given.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"
        )
    except (ElementTree.ParseError, KeyError, ValueError):
        return
    if x and y:  # 0: a unit that is no length
        yield _Claim("OME's PhysicalSize", x, y)


def _of_picture(path: Path) -> Iterator[_Claim]:
    """What a png's pHYs or a jpg's density claims."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decompressed
            with Image.open(path) as header:
                dpi = header.info.get("dpi", (0, 0))
    except Image.DecompressionBombError:
        return
    except Exception as error:  # Pillow raises errors of several kinds
        raise ValueError(f"{path}: expected a png or jpg, found one with a broken header; save it again") from error
    if dpi[0] > 0 and dpi[1] > 0:
        yield _Claim("density", MICRONS["inch"] / float(dpi[0]), MICRONS["inch"] / float(dpi[1]))


def _microns(unit: str) -> float:
    """Microns of a unit of length, 0 for any other text; ImageJ writes its µ as a code."""
    return MICRONS.get(unit.strip().lower().replace("\\u00b5", "µ").replace("\u03bc", "µ"), 0.0)
