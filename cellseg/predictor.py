"""Checkpoints and any image -> its cells: what `cellseg.load` returns.

Letters: H x W size of the image.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellseg.calibration import rescaled
from cellseg.cells import Cells, cells_of
from cellseg.checkpoint import load_ensemble
from cellseg.codes import Array
from cellseg.config import PredictConfig
from cellseg.device import device_of
from cellseg.ensemble import Ensemble
from cellseg.images import as_image, recolored
from cellseg.overlaps import settled
from cellseg.predict import Result, detect, to_results
from cellseg.registry import model_file
from cellseg.scale import mpp_of, relative_zoom
from cellseg.slides import Image, open_image
from cellseg.tiles import tiles

log = logging.getLogger(__name__)
ADDRESSES = ("models:", "runs:")
"""what begins the address of a model in MLflow"""


@dataclass(frozen=True)
class Model:
    """A network, or several that predict together, ready for any image."""

    ensemble: Ensemble
    config: PredictConfig
    class_names: tuple[str, ...]
    color: str
    """rgb or gray: what the network was trained on"""
    mpp: float | None
    """microns per pixel of the images it was trained on; None where that is not known"""
    digest: str
    """of the checkpoint files"""

    def predict(
        self, image: Array | str | Path, *, mpp: float | None = None, channel_order: str = "rgb", name: str = "image"
    ) -> Cells:
        """The cells of an image that share no pixel: the pq operating point.

        The image is a file (tif, svs, ndpi, png, jpg) or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8,
        uint16 or float. `mpp`, microns per pixel, is by default that of the file's tags: where it differs from that of
        the training, the image is zoomed as much, and calibrated scores go by the sizes that cells would have there.
        Raises FileNotFoundError and ValueError.
        """
        if isinstance(image, str | Path):
            path = Path(image)
            return self.cells(open_image(path, channel_order, self.color), mpp or mpp_of(path), str(path))
        return self.cells(recolored(as_image(np.asarray(image), name), channel_order, self.color), mpp, name)

    def cells(
        self, image: Image, mpp: float | None, name: str, tell: Callable[[float], None] = lambda share: None
    ) -> Cells:
        """As predict, of an image (H, W, 3) uint8 in the network's colours; `tell` hears what share is done."""
        factor, doubt = relative_zoom(mpp, self.mpp)
        if doubt:
            log.warning("%s: %s", name, doubt)
        size_hw = image.shape[0], image.shape[1]
        config = self.config.zoomed(factor)
        if config.calibration:
            config = replace(config, calibration=rescaled(config.calibration, factor))
        rows = len({tile.rows.start for tile in tiles(size_hw, config, self.ensemble.stride)})
        results: list[Result] = []
        for row, found in enumerate(detect(self.ensemble, image, config), start=1):
            results += to_results(found, 1, size_hw, config)
            tell(row / rows)
        return cells_of(settled(results, config), size_hw, self.class_names, mpp)

    def renamed(self, class_names: Sequence[str]) -> "Model":
        """The same with other names of its classes. Raises ValueError where there are not as many."""
        if len(class_names) != len(self.class_names):
            raise ValueError(
                f"--classes: expected {len(self.class_names)} names, for {', '.join(self.class_names)}, got "
                f"{len(class_names)}: {', '.join(class_names)}"
            )
        return replace(self, class_names=tuple(class_names))


def load(*sources: str | Path, device: str = "auto") -> Model:
    """The network of a checkpoint, or several that predict together.

    A source is a best.pt, or an address in MLflow such as `models:/cellseg@best`. Raises FileNotFoundError and
    ValueError.
    """
    with ExitStack() as fetched:
        paths = [fetched.enter_context(local_file(each)) for each in sources]
        ensemble, first = load_ensemble(paths, device_of(device))
        digest = hashlib.blake2b(b"".join(path.read_bytes() for path in paths), digest_size=8).hexdigest()
    color, config = first.config.dataset.color, first.config.predict
    if doubt := ensemble.doubt(config):
        log.warning(doubt)
    return Model(ensemble, config, first.plan.class_names, color, first.plan.mpp, digest)


def local_file(source: str | Path) -> AbstractContextManager[Path]:
    """The checkpoint file of a path or of an address in MLflow; a colon's double slash may have lost one in a Path."""
    text = str(source)
    return model_file(text, Path.cwd()) if text.startswith(ADDRESSES) else nullcontext(Path(source))
