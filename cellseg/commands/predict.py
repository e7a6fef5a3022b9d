"""`cellseg predict`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from cellseg.user_errors import in_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cellseg.batch import Job, Journal
    from cellseg.predictor import Model

Format = Literal["labels", "coco", "geojson", "rois", "csv", "overlay"]


@dataclass(frozen=True)
class Predict:
    """Find the cells of images with a checkpoint, and write them in the formats of other tools.

    The same command goes on where it stopped. A file that cannot be read is named, the others are predicted, and the
    exit code is 1. `torchrun --nproc-per-node N -m cellseg.cli predict ...` shares the images out to N processes.
    """

    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")]
    """a best.pt of final_train.py, or a model of MLflow such as models:/cellseg@best"""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGES", help_behavior_hint="(required)")]
    """image files (tif, svs, ndpi, png, jpg; slides of any size), or folders of them"""
    out: Path = Path("predictions")
    """folder for what is found: <name>.<format>.<ending>"""
    formats: tuple[Format, ...] = ("labels", "csv", "overlay")
    """labels: tif, a pixel of cell n is n; coco: json; geojson: for QuPath; rois: zip for ImageJ; csv: measurements;
    overlay: png with outlines"""
    mpp: float | None = None
    """microns per pixel of the images; by default from the tags of each file"""
    classes: tuple[str, ...] = ()
    """names of the classes, in their order; by default those of the training"""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """colour order of the files"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    overwrite: bool = False
    """forget what the folder holds of an earlier call, and predict all images"""

    def run(self) -> int:
        """Predict and write; of several processes, each predicts its share and the first tells."""
        if not self.images:
            raise ValueError("images: expected files or folders after the checkpoint, got none; name what to predict")
        if self.mpp is not None and not self.mpp > 0:
            raise ValueError(f"--mpp: expected microns per pixel above 0, got {self.mpp}")
        from cellseg.batch import jobs_of
        from cellseg.device import device_of
        from cellseg.distributed import from_first, gathered, joined, own_device, world
        from cellseg.predictor import load

        jobs = jobs_of(self.images, self.out)
        device = own_device(device_of(self.device))
        with joined(device):
            rank, processes = world()
            model = load(self.checkpoint, device=str(device))
            model = model.renamed(self.classes) if self.classes else model
            journal = from_first(None if rank else self._journal(model))
            assert journal is not None
            failures = gathered(self._predicted(model, jobs[rank::processes], journal, shown=rank == 0))
            failed = from_first(sum(failures or []))
        if rank == 0:
            for name, count in journal.counts(jobs).items():
                print(f"{name:16} {count:9,} cells")
            print(f"{self.out}: {len(jobs) - failed} of {len(jobs)} images, {', '.join(self.formats)}")
        return 1 if failed else 0

    def _journal(self, model: "Model") -> "Journal":
        """What is finished in the folder; all is forgotten with --overwrite."""
        from cellseg.batch import JOURNAL, Journal

        if self.overwrite:
            (self.out / JOURNAL).unlink(missing_ok=True)
        settings = {"checkpoint": model.digest, "classes": model.class_names}
        return Journal(self.out, {**settings, "mpp": self.mpp, "channel order": self.channel_order})

    def _predicted(self, model: "Model", jobs: "Sequence[Job]", journal: "Journal", shown: bool) -> int:
        """How many of the images failed; each is named when it does."""
        from tqdm import tqdm

        from cellseg.batch import predict_files

        failures: list[str] = []
        with tqdm(total=len(jobs), unit="image", disable=not (shown and sys.stderr.isatty())) as bar:

            def failed(job: "Job", error: Exception) -> None:
                failures.append(job.name)
                reason = in_one_line(error) or str(error)
                tqdm.write(f"error: {reason if str(job.path) in reason else f'{job.path}: {reason}'}", sys.stderr)

            def tell(done: float) -> None:
                bar.n = round(done, 2)
                bar.refresh()

            predict_files(
                model,
                jobs,
                journal,
                self.formats,
                mpp=self.mpp,
                channel_order=self.channel_order,
                tell=tell,
                failed=failed,
            )
        return len(failures)
