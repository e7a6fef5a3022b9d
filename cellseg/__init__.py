"""Cell instance segmentation in histology with Mask R-CNN.

`model = cellseg.load("best.pt")`, `cells = model.predict("image.tif")`, `cells.to_label_map()`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellseg.predictor import Model


def load(*sources: str | Path, device: str = "auto") -> "Model":
    """The network of a checkpoint, or several that predict together, ready for any image.

    A source is a best.pt, or an address in MLflow such as `models:/cellseg@best`; device is auto, cpu, cuda, cuda:1 or
    mps. Raises FileNotFoundError and ValueError.
    """
    from cellseg.predictor import load  # torch takes seconds: not before it is asked for

    return load(*sources, device=device)
