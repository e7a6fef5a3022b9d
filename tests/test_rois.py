"""ImageJ's ROIs, both ways; where ImageJ itself is installed it reads what we write, and we what it writes."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_cells import SIZE, awkward_cells, cells_of_shapes, disc, masks_of, no_cells
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi, roiread

from cellseg import rois
from cellseg.codes import decode

IMAGEJ = Path(os.environ.get("IMAGEJ_JAR", "/usr/share/java/ij.jar"))
MOVE, LINE, QUADRATIC, CUBIC, CLOSE = range(5)


def roi(points, kind=ROI_TYPE.POLYGON, name="epithelial-1", **more):
    made = ImagejRoi.frompoints(points, name=name)
    made.roitype = kind
    for key, value in more.items():
        setattr(made, key, value)
    return made


def box(kind, left=2, top=1, right=7, bottom=4, **more):
    made = {"name": "epithelial-1"} | more
    return ImagejRoi(roitype=kind, left=left, top=top, right=right, bottom=bottom, **made)


def path(*numbers, **more):
    return box(ROI_TYPE.RECT, shape_roi_size=len(numbers), multi_coordinates=np.array(numbers, np.float32), **more)


def mask_of(made, folder, size=(12, 14)):
    (folder / "one.roi").write_bytes(made.tobytes())
    (cell,) = rois.read(folder / "one.roi", size)
    return decode(cell.code)


def test_what_is_written_is_read_to_the_pixel(tmp_path):
    cells = awkward_cells()
    rois.write(cells, tmp_path / "a.zip")
    read = rois.read(tmp_path / "a.zip", SIZE)
    assert [cell.code for cell in read] == list(cells.codes)
    assert [cell.class_name for cell in read] == cells.names
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {each.date_time for each in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # whenever it is written


def test_a_cell_is_a_traced_roi_and_one_of_parts_or_holes_a_composite(tmp_path):
    rois.write(awkward_cells(), tmp_path / "a.zip")
    pixel, ring, corners, edge = roiread(tmp_path / "a.zip")[:4]
    assert [each.name for each in (pixel, ring)] == ["0001-epithelial", "0002-mast cell"]
    assert [each.composite for each in (pixel, ring, corners, edge)] == [False, True, True, False]
    assert edge.roitype == ROI_TYPE.TRACED
    assert edge.coordinates().tolist() == [[76, 57], [80, 57], [80, 60], [76, 60]]
    assert (edge.left, edge.top, edge.right, edge.bottom) == (76, 57, 80, 60)
    assert (ring.left, ring.top, ring.right, ring.bottom) == (10, 10, 15, 15)
    assert edge.stroke_color == bytes((255, 0, 190, 255))  # as in the pictures; a group would win over it
    assert edge.group == 0


def test_slashes_in_a_class_make_no_folder(tmp_path):
    rois.write(cells_of_shapes((3, 4, [[1]], 1), names=("tumor/front",)), tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["0001-tumor_front.roi"]
    assert rois.read(tmp_path / "a.zip", SIZE)[0].class_name == "tumor/front"


def test_corners_beyond_the_integers_of_imagej_are_exact(tmp_path):
    size = (60, 70_000)
    cells = cells_of_shapes((60_530, 3, disc(5), 1), (69_990, 40, [[1, 0], [0, 1]], 1), size=size)
    rois.write(cells, tmp_path / "a.zip")
    assert [cell.code for cell in rois.read(tmp_path / "a.zip", size)] == list(cells.codes)


def test_no_cell_is_an_empty_zip(tmp_path):
    rois.write(no_cells(), tmp_path / "a.zip")
    assert rois.read(tmp_path / "a.zip", SIZE) == []


@pytest.mark.parametrize("kind", [ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED])
def test_polygons_are_filled_by_the_centres_of_pixels(tmp_path, kind):
    inside = mask_of(roi([(2, 1), (7, 1), (7, 4), (2, 4)], kind), tmp_path)
    assert inside[1:4, 2:7].all()
    assert inside.sum() == 15
    fractions = mask_of(roi([(2.4, 1.4), (6.6, 1.4), (6.6, 3.4), (2.4, 3.4)], kind), tmp_path)
    assert fractions[1:3, 2:7].all()
    assert fractions.sum() == 10


def test_a_rectangle_is_its_pixels(tmp_path):
    inside = mask_of(box(ROI_TYPE.RECT), tmp_path)
    assert inside[1:4, 2:7].all()
    assert inside.sum() == 15


def test_an_oval_has_the_pixels_that_imagej_gives_it(tmp_path):
    assert mask_of(box(ROI_TYPE.OVAL, 1, 1, 11, 11), tmp_path).sum() == 80
    assert mask_of(box(ROI_TYPE.OVAL, 1, 1, 3, 3), tmp_path).sum() == 4


def test_a_composite_may_hold_holes_and_curves(tmp_path):
    square = (MOVE, 1, 1, LINE, 9, 1, LINE, 9, 9, LINE, 1, 9, CLOSE)
    hole = (MOVE, 3, 3, LINE, 3, 5, LINE, 5, 5, LINE, 5, 3, CLOSE)
    assert mask_of(path(*square, *hole), tmp_path).sum() == 64 - 4
    assert (
        mask_of(path(*square, *hole[:-1], MOVE, 10, 10, LINE, 12, 10, LINE, 12, 12, LINE, 10, 12), tmp_path).sum() == 64
    )
    bend = 2 / 3 * (2**0.5 - 1) * 2 * 5  # of cubic curves that make a circle of radius 5
    circle = [MOVE, 11, 6]
    for (ux, uy), (vx, vy) in (((1, 0), (0, 1)), ((0, 1), (-1, 0)), ((-1, 0), (0, -1)), ((0, -1), (1, 0))):
        start, end = (6 + 5 * ux, 6 + 5 * uy), (6 + 5 * vx, 6 + 5 * vy)
        circle += [CUBIC, start[0] + bend * vx, start[1] + bend * vy, end[0] + bend * ux, end[1] + bend * uy, *end]
    assert mask_of(path(*circle, CLOSE), tmp_path).sum() == 80
    arch = mask_of(path(MOVE, 0, 0, QUADRATIC, 6, 12, 12, 0, CLOSE), tmp_path)
    assert arch.sum() == pytest.approx(48, abs=4)  # two thirds of 12 x 6
    assert arch[:6].sum() == arch.sum()


def test_the_class_is_in_the_name_else_in_the_group_else_it_is_given(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, (name, group) in enumerate([("mast cell-3", 0), ("0012-0034", 1), ("", 2), ("0001-0002-0003", 9)]):
            made = box(ROI_TYPE.RECT, name=name, group=group)
            archive.writestr(f"{number:04}.roi", made.tobytes())
        archive.writestr("notes.txt", "not a ROI")
        archive.writestr("__MACOSX/._0001.roi", "no ROI either")
        archive.writestr("folder/neutrophil-4.roi", box(ROI_TYPE.RECT, name="").tobytes())
    read = rois.read(tmp_path / "a.zip", (12, 14), ("epithelial", "lymphocyte"), "other")
    assert [cell.class_name for cell in read] == ["mast cell", "epithelial", "lymphocyte", "other", "neutrophil"]
    with pytest.raises(
        ValueError, match=r"a\.zip: 0001\.roi: expected a name with a class, .* found 0012-0034; rename"
    ):
        rois.read(tmp_path / "a.zip", (12, 14))


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (roi([(1, 1), (3, 3)], ROI_TYPE.POINT), "a ROI that is an area, found type POINT; draw it again"),
        (roi([(1, 1), (3, 3)], ROI_TYPE.POLYLINE), "found type POLYLINE"),
        (box(ROI_TYPE.LINE), "found type LINE"),
        (box(ROI_TYPE.RECT, rounded_rect_arc_size=5), "found a rounded rectangle"),
        (roi([(1, 1), (9, 1), (9, 9)], options=ROI_OPTIONS.SPLINE_FIT), "found type POLYGON, fitted by a spline"),
        (path(9, 1, 1), "a ROI that is an area"),
        (path(LINE, 1, 1), "a ROI that is an area"),
        (box(ROI_TYPE.RECT, 90, 90, 95, 95), "around pixels of the image, 12 high and 14 wide"),
    ],
)
def test_what_is_no_area_is_refused_by_file_and_roi(tmp_path, made, found):
    with pytest.raises(ValueError, match=rf"one\.roi: one\.roi: expected .*{found}") as caught:
        mask_of(made, tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_roi_and_what_is_not_there_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.zip: no such file"):
        rois.read(tmp_path / "a.zip", SIZE)
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ValueError, match=r"a\.zip: expected a ROI that is an area, found .*ImageJ ROI"):
        rois.read(tmp_path / "a.zip", SIZE)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("photo.png", b"")
    with pytest.raises(ValueError, match=r"b\.zip: expected a zip of ROIs, found no \.roi but photo\.png"):
        rois.read(tmp_path / "b.zip", SIZE)


JAVA = """
import ij.gui.*; import ij.io.*; import ij.process.*; import java.io.*; import java.util.zip.*;
public class Rois {
    static void tell(String name, Roi roi) {
        java.awt.Rectangle box = roi.getBounds();
        ImageProcessor mask = roi.getMask();
        StringBuilder line = new StringBuilder(name + ";" + roi.getTypeAsString() + ";" + box.x + ";" + box.y + ";"
            + box.width + ";" + box.height + ";");
        for (int i = 0; i < box.width * box.height; i++) line.append(mask == null || mask.get(i) != 0 ? 1 : 0);
        System.out.println(line);
    }
    static void save(String folder, String name, Roi roi) throws Exception {
        RoiEncoder.save(roi, folder + "/" + name + ".roi");
        tell(name, roi);
    }
    public static void main(String[] arguments) throws Exception {
        ZipInputStream zip = new ZipInputStream(new FileInputStream(arguments[0]));
        for (ZipEntry entry; (entry = zip.getNextEntry()) != null;)
            tell("read", new RoiDecoder(zip.readAllBytes(), entry.getName()).getRoi());
        int[] xs = {20, 33, 28, 9}, ys = {5, 18, 30, 21};
        float[] xf = {20.3f, 33.7f, 28.2f, 9.6f}, yf = {5.5f, 18.1f, 30.9f, 21.4f};
        String folder = arguments[1];
        save(folder, "oval", new OvalRoi(3, 4, 17, 9));
        save(folder, "rectangle", new Roi(3, 4, 17, 9));
        save(folder, "polygon", new PolygonRoi(xs, ys, 4, Roi.POLYGON));
        save(folder, "freehand", new PolygonRoi(xf, yf, 4, Roi.FREEROI));
        save(folder, "ellipse", new EllipseRoi(10, 10, 30, 25, 0.6));
        save(folder, "rotated", new RotatedRectRoi(10, 10, 30, 25, 12));
        save(folder, "composite", new ShapeRoi(new OvalRoi(5, 5, 30, 20)).not(new ShapeRoi(new OvalRoi(9, 8, 13, 11))));
    }
}
"""


@pytest.mark.skipif(not IMAGEJ.exists(), reason="Debian's libij-java is not installed")
@pytest.mark.skipif(shutil.which("javac") is None, reason="no Java compiler is installed")
def test_imagej_reads_the_pixels_that_we_write_and_we_those_that_it_writes(tmp_path):
    (tmp_path / "Rois.java").write_text(JAVA)
    rois.write(awkward_cells(), tmp_path / "a.zip")
    java = ["java", "-Djava.awt.headless=true", "-cp", str(IMAGEJ), "Rois.java", "a.zip", "."]
    said = subprocess.run(java, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120).stdout
    lines = [line.split(";") for line in said.splitlines() if line.count(";") == 6]
    masks = {"read": []}
    for name, _, x, y, width, height, pixels in lines:
        mask = np.zeros(SIZE, bool)
        window = np.frombuffer(pixels.encode(), np.uint8).reshape(int(height), int(width)) == ord("1")
        mask[int(y) : int(y) + int(height), int(x) : int(x) + int(width)] = window
        if name == "read":
            masks["read"].append(mask)
        else:
            masks[name] = mask
    assert np.array_equal(masks.pop("read"), masks_of(awkward_cells().codes))
    assert len(masks) == 7
    for name, mask in masks.items():
        (cell,) = rois.read(tmp_path / f"{name}.roi", SIZE)
        assert np.array_equal(decode(cell.code), mask), name
        assert cell.class_name == name
