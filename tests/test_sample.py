import contextlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellseg import sample
from cellseg.codes import Array, decode
from cellseg.label_maps import areas_of, boxes_of, codes_of

HAEMATOXYLIN_FROM_OD = np.linalg.inv([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])[:, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training images and the six test images of a sample of default size."""
    path = tmp_path_factory.mktemp("sample") / "new" / "folder"
    sample.write(path, train=8)
    return path


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "test_truth.json").read_text())
    return found


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored_ids(place: Path) -> list[Array]:
    """Ids per class file, empty where the file is absent."""
    paths = [place / f"class{label}.tif" for label in (1, 2, 3, 4)]
    return [np.unique(tifffile.imread(p))[1:] if p.exists() else np.empty(0) for p in paths]


def test_the_folder_holds_the_layout_of_the_competition(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == set(sample.ENTRIES)
    assert len(list((folder / "train").iterdir())) == 8
    for place in (folder / "train").iterdir():
        names = {p.name for p in place.iterdir()}
        assert "image.tif" in names
        assert names - {"image.tif"} <= {f"class{label}.tif" for label in (1, 2, 3, 4)}
        image = tifffile.imread(place / "image.tif")
        assert image.dtype == np.uint8
        assert image.shape[2] == 4
        assert (image[:, :, 3] == 255).all()
        for path in place.glob("class*.tif"):
            label_map = tifffile.imread(path)
            assert label_map.dtype == np.float64
            assert label_map.shape == image.shape[:2]


def test_images_are_lzw_with_predictor_class_files_are_plain_and_no_file_tells_the_time(folder: Path) -> None:
    place = next((folder / "train").iterdir())
    for path, compression, predictor in ((place / "image.tif", 5, 2), (place / "class1.tif", 1, 1)):
        with tifffile.TiffFile(path) as tif:
            page = tif.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            assert (page.compression, page.predictor) == (compression, predictor)
            assert not {"DateTime", "Software", "ImageDescription"} & {tag.name for tag in page.tags}


def test_a_class_without_cells_has_no_file_and_every_file_has_cells(folder: Path) -> None:
    files = list((folder / "train").rglob("class*.tif"))
    assert len(files) < 8 * 4
    assert {path.name for path in files} == {f"class{label}.tif" for label in (1, 2, 3, 4)}
    assert all(tifffile.imread(path).any() for path in files)


def test_ids_are_one_counter_across_the_class_files_with_gaps(folder: Path) -> None:
    gaps = 0
    for place in (folder / "train").iterdir():
        ids = np.concatenate(stored_ids(place))
        assert len(set(ids)) == len(ids)
        assert list(ids) == sorted(ids)
        gaps += int(ids.max()) - len(ids)
    assert gaps > 0


def test_every_pixel_has_one_owner_over_all_classes(folder: Path) -> None:
    for place in (folder / "train").iterdir():
        owners = sum((tifffile.imread(path) > 0).astype(int) for path in place.glob("class*.tif"))
        assert np.max(owners) == 1


def test_sizes_vary_and_one_training_image_is_dense(folder: Path) -> None:
    sizes = [tifffile.imread(path).shape[:2] for path in (folder / "train").rglob("image.tif")]
    assert min(min(size) for size in sizes) <= 80
    assert max(max(size) for size in sizes) >= 500
    assert all(60 <= side <= 600 for size in sizes for side in size)
    assert max(sum(map(len, stored_ids(place))) for place in (folder / "train").iterdir()) >= 300


def test_one_test_image_is_dense_and_all_classes_occur(truth: dict[str, Any]) -> None:
    assert max(Counter(a["image_id"] for a in truth["annotations"]).values()) >= 150
    assert {a["category_id"] for a in truth["annotations"]} == {1, 2, 3, 4}


def test_the_id_file_lists_the_test_images_in_mixed_order(folder: Path, truth: dict[str, Any]) -> None:
    listed = json.loads((folder / "test_image_name_to_ids.json").read_text())
    assert listed == truth["images"]
    assert sorted(entry["id"] for entry in listed) == [1, 2, 3, 4, 5, 6]
    assert [entry["id"] for entry in listed] != [1, 2, 3, 4, 5, 6]
    assert {entry["file_name"] for entry in listed} == {p.name for p in (folder / "test_release").iterdir()}
    for entry in listed:
        image = tifffile.imread(folder / "test_release" / entry["file_name"])
        assert image.shape == (entry["height"], entry["width"], 4)


def test_the_truth_is_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.zeros((4, 70, 90), np.int32)
    drawn[0, 2:5, 10:14] = 1  # 12 pixels
    drawn[0, 60:70, 88:90] = 3  # 20 pixels, cut by the border
    drawn[3, 20:40, 30:35] = 4  # 100 pixels
    monkeypatch.setattr(sample, "paint", lambda scene, rng: (np.zeros((70, 90, 3), np.uint8), drawn))
    sample.write(tmp_path / "set", train=1, test=1)
    truth = json.loads((tmp_path / "set" / "test_truth.json").read_text())
    found = [
        (a["id"], a["image_id"], a["category_id"], a["area"], a["bbox"], a["iscrowd"]) for a in truth["annotations"]
    ]
    assert found == [
        (1, 1, 1, 12, [10, 2, 4, 3], 0),
        (2, 1, 1, 20, [88, 60, 2, 10], 0),
        (3, 1, 4, 100, [30, 20, 5, 20], 0),
    ]
    for annotation, (plane, number) in zip(truth["annotations"], ((0, 1), (0, 3), (3, 4)), strict=True):
        assert (decode(annotation["segmentation"]) == (drawn[plane] == number)).all()


def test_red_and_blue_are_swapped_in_the_file(folder: Path) -> None:
    for place in (folder / "train").iterdir():
        stored = tifffile.imread(place / "image.tif").astype(float)
        inside = np.max([tifffile.imread(path) for path in place.glob("class*.tif")], axis=0) > 0
        blue, _, red = np.log(245) - np.log(stored[inside][:, :3] + 1).mean(axis=0)
        assert red > 1.3 * blue  # haematoxylin absorbs red more than twice as much as blue


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        sample.write(tmp_path / name, train=2, test=1, seed=seed)
    assert file_bytes(tmp_path / "first") == file_bytes(tmp_path / "again")
    assert not set(file_bytes(tmp_path / "first").values()) & set(file_bytes(tmp_path / "other").values())


def test_the_test_images_do_not_depend_on_the_number_of_training_images(tmp_path: Path) -> None:
    sample.write(tmp_path / "one", train=1, test=1)
    sample.write(tmp_path / "two", train=2, test=1)
    one, two = file_bytes(tmp_path / "one"), file_bytes(tmp_path / "two")
    tested = {name for name in one if not name.startswith("train")}
    assert len(tested) == 3
    assert {name: one[name] for name in tested} == {name: two[name] for name in tested}


@pytest.mark.parametrize("entry", sample.ENTRIES)
def test_a_folder_that_holds_a_data_set_is_refused_and_left_alone(tmp_path: Path, entry: str) -> None:
    (tmp_path / entry).mkdir()
    with pytest.raises(ValueError, match=rf"already holds {entry}; name a new folder"):
        sample.write(tmp_path, train=1, test=0)
    assert [p.name for p in tmp_path.iterdir()] == [entry]


def test_a_file_in_place_of_the_folder_and_senseless_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="expected a folder, found a file"):
        sample.write(tmp_path / "file", train=1, test=0)
    with pytest.raises(ValueError, match="at least 1 training and 0 test images, got 0 and -1"):
        sample.write(tmp_path / "new", train=0, test=-1)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_no_half_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[Any] = []

    def paint_once(*arguments: Any) -> tuple[Array, Array]:
        if painted:
            raise OSError("disk full")
        painted.append(arguments)
        return np.zeros((60, 60, 3), np.uint8), np.ones((4, 60, 60), np.int32)

    monkeypatch.setattr(sample, "paint", paint_once)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OSError, match="disk full"):
        sample.write(tmp_path, train=1, test=1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def mask_ap50(truth: dict[str, Any], results: list[dict[str, Any]]) -> float:
    """Mean mask AP50 of the classes that occur, 100 detections an image and class, by pycocotools alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        scored = COCOeval(coco, coco.loadRes([dict(result) for result in results]), "segm")
        scored.evaluate()
        scored.accumulate()
    precision = scored.eval["precision"][0, :, :, 0, 2]  # (recalls, classes) at IoU .5, all areas, 100 detections
    return float(precision[precision > -1].reshape(101, -1).mean(axis=0).mean())


def otsu_results(
    folder: Path, truth: dict[str, Any], label: int, stain: bool, usual_area: float
) -> list[dict[str, Any]]:
    """Connected components over the Otsu threshold as cells of one class, scored 1 or by how usual their area is."""
    results = []
    for entry in truth["images"]:
        bgr = np.ascontiguousarray(tifffile.imread(folder / "test_release" / entry["file_name"])[:, :, :3])
        haematoxylin = -np.log((bgr[:, :, ::-1] + 1.0) / 256) @ HAEMATOXYLIN_FROM_OD
        dark = np.clip(80 * haematoxylin, 0, 255) if stain else 255 - cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
        components = cv2.connectedComponents(cv2.threshold(dark.astype(np.uint8), 0, 255, cv2.THRESH_OTSU)[1])[1]
        for code, area in zip(codes_of(components), areas_of(components), strict=True):
            score = 1 / (1 + abs(np.log(area / usual_area))) if usual_area else 1.0
            results.append({"image_id": entry["id"], "category_id": label, "score": score, "segmentation": code})
    return results


def test_thresholding_and_connected_components_fail(folder: Path, truth: dict[str, Any]) -> None:
    cells = [
        sum(counts) for counts in zip(*[map(len, stored_ids(p)) for p in (folder / "train").iterdir()], strict=True)
    ]
    label = 1 + int(np.argmax(cells))
    usual_area = float(np.median([a["area"] for a in truth["annotations"] if a["category_id"] == label]))
    for stain in (False, True):
        for area in (0.0, usual_area):
            assert mask_ap50(truth, otsu_results(folder, truth, label, stain, area)) < 0.15


def test_the_score_that_thresholding_fails_is_high_for_the_truth_itself(truth: dict[str, Any]) -> None:
    perfect = [a | {"score": 1.0} for a in truth["annotations"]]
    assert mask_ap50(truth, perfect) > 0.8  # not 1: the dense image has more than 100 cells of one class


def test_the_boxes_of_the_truth_are_those_of_its_masks(truth: dict[str, Any]) -> None:
    for annotation in truth["annotations"][:50]:
        x1, y1, x2, y2 = boxes_of(decode(annotation["segmentation"]).astype(np.int32))[0]
        assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
