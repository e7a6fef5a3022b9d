"""`cellseg predict`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Predict:
    """Find the cells of images with a checkpoint, and write them as COCO results.

    `torchrun --nproc-per-node N -m cellseg.cli predict ...` shares the images out to N processes, each with its GPU.
    """

    checkpoint: Positional[Path]
    """a best.pt of final_train.py"""
    images: Positional[tuple[Path, ...]]
    """image files; image n gets image_id n, counted from 1"""
    out: Path = Path("results.json")
    """the file to write"""
    point: Literal["pq", "ap"] = "pq"
    """pq: cells that do not overlap, over the tuned threshold; ap: all detections, for scoring"""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """colour order of the files"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""

    def run(self) -> int:
        """Predict and write; of several processes, each predicts its share and the first writes."""
        from cellseg.device import device_of
        from cellseg.distributed import gathered, joined, own_device, world
        from cellseg.json_files import write_json

        device = own_device(device_of(self.device))
        with joined(device):
            shares = gathered(self._found(device, *world()))
        if shares is None:
            return 0
        found = {image_id: cells for share in shares for image_id, cells in share.items()}
        results = [cell for image_id in sorted(found) for cell in found[image_id]]
        write_json(results, self.out)
        print(f"{self.out}: {len(results)} cells in {len(self.images)} images")
        return 0

    def _found(self, device: "torch.device", rank: int, processes: int) -> dict[int, list[dict[str, Any]]]:
        """By image id, the results of the images that this process predicts: every `processes`-th from `rank` on."""
        from tqdm import tqdm

        from cellseg.checkpoint import load_model
        from cellseg.overlaps import settled
        from cellseg.predict import predict
        from cellseg.slides import open_image

        model, checkpoint = load_model(self.checkpoint, device)
        config = checkpoint.config
        share = list(enumerate(self.images, start=1))[rank::processes]
        found = {}
        for image_id, path in tqdm(share, unit="image", disable=rank > 0 or not sys.stderr.isatty()):
            image = open_image(path, self.channel_order, config.dataset.color)
            cells = predict(model, [(image_id, image)], config.predict)
            found[image_id] = settled(cells, config.predict) if self.point == "pq" else cells
            print(f"{path}: {len(found[image_id])} cells", flush=True)
        return found
