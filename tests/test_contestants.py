"""Both kinds of contestants under one interface; test_accuracy.py runs them as a user does."""

import shutil
from dataclasses import replace

import pytest
from accuracy import HERE
from contestants import EPOCH, Ours, Theirs, contestant, scheduled
from opponents import OPPONENTS
from records import digest_of, read
from untrained import save_untrained

from cellseg.checkpoint import load, save
from cellseg.config_fields import replaced


@pytest.fixture
def ours(prepared):
    return Ours(prepared)


def silent(text):
    pass


@pytest.mark.parametrize(("steps", "epochs", "each"), [(1, 1, 1), (EPOCH, 1, 250), (251, 2, 125), (1000, 4, 250)])
def test_a_schedule_has_the_steps_in_equal_epochs(run_config, steps, epochs, each):
    train = scheduled(run_config, steps).train
    assert (train.epochs, train.steps_per_epoch) == (epochs, each)


def test_settings_are_what_departs_from_the_defaults_but_for_seed_and_device(ours, prepared):
    other = replace(prepared, config=replaced(prepared.config, {"seed": 5, "device": "cuda"}))
    assert Ours(other).settings() == ours.settings()
    assert ours.settings()["train.learning_rate"] == 1e-3
    assert "train.momentum" not in ours.settings()
    changed = replace(prepared, config=replaced(prepared.config, {"train.momentum": 0.8}))
    assert Ours(changed).settings() != ours.settings()


def test_the_averaged_weights_after_the_last_step_are_asked(ours, tmp_path):
    trained = ours.train(3, 1, tmp_path, silent)
    saved = load(tmp_path / "last.pt")
    assert (trained.steps, saved.training["step"], saved.config.seed) == (3, 3, 1)
    again = ours.train(3, 1, tmp_path, silent)
    assert again.results == trained.results
    assert again.seconds == trained.seconds


def test_held_out_images_are_those_of_the_split_for_all(ours, prepared):
    theirs = Theirs(prepared, OPPONENTS["torchvision"])
    names = [
        [number for number, _ in each.prepared.data.identified(each.prepared.validation)] for each in (ours, theirs)
    ]
    assert names[0] == names[1] == [prepared.data.records[index].image_id for index in prepared.validation]
    assert not set(theirs.task.train) & set(prepared.validation)
    assert theirs.task.zoom == prepared.plan.zoom


@pytest.mark.parametrize("name", ["torchvision", "reference"])
def test_the_committed_records_are_those_of_the_opponents_as_they_are(prepared, name):
    consep = replace(prepared, plan=replace(prepared.plan, zoom=1.62))
    configs = {each.config for each in read(HERE / "consep.json").records if each.recipe == name}
    assert configs == {digest_of(Theirs(consep, OPPONENTS[name]).settings())}
    asked = replace(OPPONENTS[name], box_nms=0.4)
    assert digest_of(Theirs(consep, asked).settings()) not in configs


def test_a_recipe_begins_from_a_checkpoint_and_is_told_by_what_that_holds(folder, run_config, tmp_path):
    begun, other = tmp_path / "a.pt", tmp_path / "b.pt"
    save_untrained(begun, run_config)
    shutil.copy(begun, other)
    entry = contestant(f"demo:{begun}", folder, "cpu")
    assert entry.prepared.config.model.fpn_channels == run_config.model.fpn_channels
    assert entry.prepared.config.train == contestant("demo", folder, "cpu").prepared.config.train
    assert entry.settings() == contestant(f"demo:{other}", folder, "cpu").settings()
    entry.train(1, 0, tmp_path / "run", silent)
    assert load(tmp_path / "run/last.pt").config.model.weights == str(begun)
    save_untrained(other, replaced(run_config, {"model.box_head": 24}))
    assert entry.settings() != contestant(f"demo:{other}", folder, "cpu").settings()
    with pytest.raises(FileNotFoundError):
        contestant("demo:none.pt", folder, "cpu")


def test_what_a_name_changes_is_not_the_checkpoint_s(folder, run_config, tmp_path):
    begun = tmp_path / "start.pt"
    save_untrained(begun, run_config)
    model = contestant(f"demo+cascade+roi128:{begun}", folder, "cpu").prepared.config.model
    assert (model.box_stages, model.roi_batch) == (3, 128)
    assert (model.box_head, model.weights) == (run_config.model.box_head, str(begun))
    with pytest.raises(
        ValueError, match=r"recipe demo\+scratch:.*: expected a start from scratch or from a checkpoint"
    ):
        contestant(f"demo+scratch:{begun}", folder, "cpu")


def test_a_checkpoint_that_knows_held_out_images_is_refused(folder, run_config, prepared, tmp_path):
    begun, names = tmp_path / "start.pt", [each.name for each in prepared.data.records]
    save_untrained(begun, run_config)
    source = load(begun)

    def begin(digest, images):
        save(replace(source, plan=replace(source.plan, digest=digest, images=tuple(images))), begun)
        return contestant(f"demo:{begun}", folder, "cpu").prepared

    held_out = [names[index] for index in begin("other data", ["another"]).validation]
    begin(prepared.data.digest, [name for name in names if name not in held_out])
    said = rf"recipe demo:{begun}: the checkpoint was trained on 1 of the {len(held_out)} images held out here"
    for digest in (prepared.data.digest, "the same data but for a file"):
        with pytest.raises(ValueError, match=said):
            begin(digest, held_out[:1])


def test_a_name_of_an_opponent_is_the_opponent(folder):
    assert isinstance(contestant("reference", folder, "cpu"), Theirs)
    assert contestant("torchvision-resnet34", folder, "cpu").opponent.backbone == "resnet34"
    assert isinstance(contestant("demo-ema", folder, "cpu"), Ours)
