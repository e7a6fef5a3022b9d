"""A training of seconds, which may be disturbed and resumed, and what it leaves."""

from pathlib import Path

import torch
from commands import start
from mlflow import MlflowClient

from cellseg.checkpoint import load

SCRIPT = "experiments/final_train.py"
EPOCHS = 3
TRAINING = [
    *(
        "--recipe",
        "demo",
        "--device",
        "cpu",
        "--augment.crop",
        "64",
        "--train.epochs",
        str(EPOCHS),
        "--train.batch",
        "1",
    ),
    *(
        "--train.steps-per-epoch",
        "2",
        "--model.fpn-channels",
        "16",
        "--model.box-head",
        "16",
        "--model.mask-channels",
        "8",
    ),
    *("--predict.zoom", "1", "--predict.detections", "60", "--predict.proposals", "100", "--dataset.workers", "0"),
]
STUDY = [*TRAINING, "--trials", "1", "--trial-epochs", "1", "--finalists", "0", "--yardsticks", "gated"]


def left_in(place):
    """The weights and the metrics of the one run in a folder; one that was killed before it had its own is empty."""
    (last,) = place.glob("experiments/runs/*/*/last.pt")
    assert sorted(path.name for path in last.parent.iterdir()) == [".lock", "best.pt", "last.pt", "run.json"]
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'cellseg-final'")
    runs = {each.info.run_id: each for each in client.search_runs([experiment.experiment_id])}
    run = runs.pop(last.parent.name)
    assert run.info.status == "FINISHED"
    assert not any(each.data.metrics for each in runs.values())
    (version,) = client.search_model_versions("name = 'cellseg'")
    assert version.run_id == run.info.run_id
    assert client.get_model_version_by_alias("cellseg", "best").version == version.version
    history = {
        name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
        if not name.startswith("system/") and "seconds" not in name
    }
    return {path.name: load(path) for path in last.parent.glob("*.pt")}, history


def assert_same(found, expected):
    (checkpoints, history), (others, other_history) = found, expected
    assert history == other_history
    for name, checkpoint in checkpoints.items():
        assert checkpoint.epoch == others[name].epoch
        assert checkpoint.metrics == others[name].metrics
        for key, tensor in checkpoint.model.items():
            assert torch.equal(tensor, others[name].model[key]), f"{name}: {key}"


def go_on(place, data, **options):
    """Begin the training, or resume it where it was begun; with no other fault, it may not train an epoch again."""
    begun = [path.parent.name for path in Path(place).glob("experiments/runs/*/*/run.json")]
    arguments = ["--resume", *begun] if begun else ["--data", data]
    if "fatal" not in options:
        options |= only_what_is_left(place)
    return start(place, SCRIPT, *TRAINING, *arguments, **{"log": place / "log", **options})


def only_what_is_left(place, epochs=EPOCHS):
    """The fault that befalls a training which begins one more epoch than its checkpoint leaves."""
    done = max((load(path).epoch for path in Path(place).glob("experiments/runs/*/*/last.pt")), default=0)
    return {"fatal": "cellseg.train:train_epoch", "call": epochs - done + 1, "fault": one_too_many}


def one_too_many(*_):
    """End a training that does not go on from its checkpoint."""
    raise AssertionError("an epoch that the checkpoint holds is trained again")
