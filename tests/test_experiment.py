"""What test_scripts.py does not see of a tracked training."""

import logging
import shutil

import tifffile

from cellseg.experiment import opened


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
