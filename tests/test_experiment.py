"""What test_scripts.py does not see of a tracked training."""

import logging
import os
import shutil

import tifffile

from cellseg.config import RunConfig
from cellseg.experiment import last_checkpoint, opened, write_run


def left(folder, **more):
    """What a training leaves."""
    write_run(folder, RunConfig(), folder, **more)
    (folder / "best.pt").touch()
    return folder / "best.pt"


def test_a_training_that_has_ended_is_taken_before_a_newer_one_that_has_not(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "cellseg")
    broken_off = left(tmp_path / "digest" / "first", ended=False)
    assert last_checkpoint("digest", tmp_path) == broken_off
    assert "final_train.py --resume first" in caplog.text
    caplog.clear()
    whole = left(tmp_path / "digest" / "second", ended=True)
    os.utime(broken_off, (2e9, 2e9))
    assert last_checkpoint("digest", tmp_path) == whole
    assert not caplog.records


def test_a_data_set_of_two_scales_is_opened_with_a_warning_that_names_both(folder, run_config, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "data")
    for number, mpp in enumerate((0.25, 0.5)):
        path = tmp_path / "data" / "train" / f"image{number}" / "image.tif"
        pixels, resolution = tifffile.imread(path), (1 / mpp, 1 / mpp)
        tifffile.imwrite(path, pixels, photometric="rgb", resolution=resolution, resolutionunit="MICROMETER")
    caplog.set_level(logging.INFO, "cellseg")
    assert opened(run_config, tmp_path / "data").mpp is None
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "image0 has 0.25 µm a pixel, image1 0.5; all are taken pixel for pixel" in warning
