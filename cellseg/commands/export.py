"""`cellseg export`."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from cellseg.whole_files import require_place, whole

if TYPE_CHECKING:
    from cellseg.config import PredictConfig

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Export:
    """Write a network as an ONNX file for programs without Python, once onnxruntime finds in it what PyTorch finds.

    The file takes `image` (height, width, 3) uint8, true RGB, of any size. It gives its cells by falling score: `boxes`
    as x1, y1, x2, y2 in pixels of the image, `labels` from 1, `scores`, and `masks` (cells, side, side), which are
    probabilities inside the boxes. Zoom, grey, thresholds, NMS, the cap of detections, rescoring and calibration are
    inside, as the checkpoint has them; the file's metadata name them, and the classes.

    Not exportable: several views, zooms or checkpoints, bfloat16, training. Left to the program that runs the file:
    reading images, tiles and their stitching (an image is seen as a whole), drawing masks, and the pq operating point,
    where cells share no pixel.
    """

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """a best.pt of final_train.py"""
    onnx: Path
    """the file to write"""

    def run(self) -> int:
        """Export, check, and only then write."""
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise ValueError(f"export: needs {', '.join(missing)}, not installed here; pip install 'cellseg[onnx]'")
        require_place(self.onnx)
        from cellseg.checkpoint import load
        from cellseg.model import build_model
        from cellseg.onnx_check import agreements, painted
        from cellseg.onnx_export import metadata_of, to_onnx
        from cellseg.onnx_network import OneImage

        checkpoint = load(self.checkpoint)
        config = checkpoint.config
        self._say_what_is_left_out(config.predict)
        network = build_model(config.model, pretrained=False)  # as it is built: float32, on the CPU
        network.load_state_dict(checkpoint.model)
        network.eval()
        one_image = OneImage(network, config.predict, config.dataset.color)
        model = to_onnx(one_image, metadata_of(checkpoint))
        for agreement in agreements(model, one_image, painted(checkpoint.plan.median_side)):
            print(agreement, flush=True)
            if not agreement.holds:
                raise ValueError(f"{self.onnx}: not written, as onnxruntime and PyTorch disagree: {agreement}")
        content = model.SerializeToString()
        with whole(self.onnx) as path:
            path.write_bytes(content)
        print(f"{self.onnx}: {len(content) / 1e6:.1f} MB")
        return 0

    def _say_what_is_left_out(self, config: "PredictConfig") -> None:
        if config.views > 1 or config.zooms != (1.0,):
            print(
                f"{self.checkpoint}: `cellseg predict` looks at each tile {config.views * len(config.zooms)} times "
                f"(views {config.views}, zooms {', '.join(map(str, config.zooms))}), the ONNX file once, as it is"
            )
