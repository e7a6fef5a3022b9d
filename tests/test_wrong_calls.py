"""Each command, called wrongly: one line that tells what to do, code 2, and nothing written."""

import pytest
from scripts import ROOT, run

from cellseg.sample import write

FINAL, SUBMIT, STUDY = (
    ROOT / path for path in ("experiments/final_train.py", "experiments/submit.py", "search/optuna_study.py")
)
DEMO = ("--data", "data", "--recipe", "demo")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small data set in data/, and a file that is nothing."""
    folder = tmp_path_factory.mktemp("wrong calls")
    write(folder / "data", train=2, test=1)
    (folder / "note.txt").write_text("no network, no image, no JSON")
    return folder


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("cellseg", (), "expected a command, got none: one of sample, convert"),
        ("cellseg", ("predcit", "best.pt"), "predcit: not expected here; expected one of sample, convert"),
        ("cellseg", ("sample",), "cellseg sample: expected FOLDER, got none; `cellseg sample --help` tells more"),
        ("cellseg", ("sample", "new", "--trian", "3"), "--trian: no such option; did you mean --train of `cellseg sa"),
        ("cellseg", ("sample", "data"), "data: already holds train"),
        ("cellseg", ("sample", "note.txt/new"), "note.txt/new: a part of this path is a file"),
        ("cellseg", ("sample", "new", "--train", "0"), "sample: expected at least 1 training"),
        ("cellseg", ("convert", "none", "new"), "none: expected a folder of images with their annotations"),
        ("cellseg", ("convert", "data", "new"), "data: expected annotations, such as a.geojson"),
        ("cellseg", ("inspect", "none"), "none: no such file or folder; expected train/<name>/image.tif"),
        ("cellseg", ("inspect", "."), ".: no train folder and no COCO file; did you mean data?"),
        ("cellseg", ("inspect", "data/train"), "data/train: looks like the train folder itself; give the folder aro"),
        ("cellseg", ("inspect", "note.txt"), "note.txt: expected COCO json"),
        ("cellseg", ("inspect", "data", "--figure", "new/x.png"), "new: no such folder; create it or choose another"),
        ("cellseg", ("inspect", "data", "--figure", "x.pdf"), "--figure x.pdf: expected a name that ends in .png"),
        ("cellseg", ("score", "data", "data"), "data: a folder, where a file was expected; name a file in it"),
        ("cellseg", ("score", "none", "none"), "none: no such file; is the name right?"),
        ("cellseg", ("lint", "note.txt", "note.txt"), "note.txt: expected JSON, or a zip"),
        ("cellseg", ("lint", "data/test_truth.json", "none"), "data/test_truth.json: expected a list of results"),
        ("cellseg", ("export", "none.pt", "--onnx", "x.onnx"), "none.pt: no such checkpoint"),
        ("cellseg", ("export", "none.pt", "--onnx", "data"), "data: a folder, where a file was expected"),
        ("cellseg", ("track", "snyc"), "action: expected sync, got snyc; `cellseg track --help` tells more"),
        ("cellseg", ("report", ""), "run '': no such run under experiments/runs"),
        ("cellseg", ("report", "none", "--out", "data"), "data: a folder, where a file was expected"),
        ("cellseg", ("predict", "data", "data"), "data: a folder, where a checkpoint was expected; name one in it"),
        ("cellseg", ("predict", "note.txt", "data"), "note.txt: expected tensors and plain values"),
        ("cellseg", ("predict", "x", "data", "--mpp", "big"), "--mpp: expected a number, got big"),
        ("cellseg", ("predict", "models:/cellseg@best", "data"), "models:/cellseg@best: no mlflow.db in"),
        (FINAL, ("--data", "none"), "none: no such file or folder"),
        (FINAL, ("--recipe", "bst"), "--recipe: expected one of demo, reference, best, best-cpu, got bst"),
        (FINAL, ("--train.epoch", "3"), "--train.epoch: no such option; did you mean --train.epochs?"),
        (FINAL, (*DEMO, "--train.batch", "-1"), "train.batch: expected at least 1, got -1"),
        (FINAL, (*DEMO, "--train.learning-rate", "0"), "train.learning_rate: expected more than 0, got 0"),
        (FINAL, (*DEMO, "--folds", "1"), "dataset.folds: expected 0 or at least 2, got 1"),
        (FINAL, (*DEMO, "--fine-tune", "note.txt"), "note.txt: expected tensors and plain values"),
        (FINAL, (*DEMO, "--weights", "data"), "--weights data: no such file; expected coco, imagenet, none"),
        (FINAL, (*DEMO, "--resume", "none"), "run 'none': no such run under experiments/runs"),
        (FINAL, (*DEMO, "--device", "gpu"), "--device gpu: expected auto, cpu, cuda, cuda:N or mps"),
        (SUBMIT, ("--data", "none"), "none: no such file or folder"),
        (SUBMIT, ("--data", "data", "--out", "data"), "data: a folder, where a file was expected"),
        (SUBMIT, ("--data", "data", "--zooms", "0"), "predict.zooms: expected more than 0, got 0"),
        (SUBMIT, ("--data", "data", "--views", "3"), "--views: expected one of 1, 2, 4, 8, got 3"),
        (SUBMIT, ("--data", "data", "--box-nms", "7"), "predict.box_nms: expected a share from 0 to 1, got 7"),
        (SUBMIT, ("--data", "data", "--checkpoint", "data"), "data: a folder, where a checkpoint was expected"),
        (STUDY, (*DEMO, "--trials", "0"), "--trials: expected at least 1, got 0"),
        (STUDY, (*DEMO, "--subset", "7"), "dataset.subset: expected a share above 0 and up to 1, got 7"),
        (STUDY, (*DEMO, "--study", "../x"), "--study: expected a name that a folder can have, got ../x"),
        (STUDY, (*DEMO, "--storage", "foo"), "--storage foo: no study can be kept there"),
        (
            STUDY,
            (*DEMO, "--storage", "sqlite:////none/x.db"),
            "--storage sqlite:////none/x.db: no study can be kept there (no such file or directory); name",
        ),
    ],
)
def test_a_wrong_call_is_answered_in_one_line(place, command, arguments, message):
    before = sorted(place.iterdir())
    said = run(place, command, *arguments, code=2)
    assert said.splitlines()[-1].startswith(f"error: {message}")
    assert said.count("error: ") == 1
    assert sorted(place.iterdir()) == before
