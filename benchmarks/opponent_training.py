"""The training loop of the accuracy benchmark's opponents, as a plain torchvision script has it, resumable.

Letters: N cells, h x w size of a view.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ingredients import GPU_WORKERS
from opponent_predict import pixels_of
from opponents import Opponent, build
from pace import Tell
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import MaskRCNN

from cellseg.codes import Array
from cellseg.dataset import DataSet
from cellseg.device import device_of
from cellseg.label_maps import target
from cellseg.optimizer import rate_factor
from cellseg.tensor_files import read_tensors
from cellseg.whole_files import whole

GLASS = 255
"""grey level around an image that is smaller than a view"""
MINIMUM_AREA = 4
"""pixels; smaller cells of a view are not trained on, as with ours"""
WARMUP_FRACTION = 0.05
SAVE_EVERY = 120.0
"""seconds of training between two checkpoints"""
Example = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Task:
    """What is trained on, and where."""

    data: DataSet
    train: Sequence[int]
    zoom: float
    """network pixels per image pixel, where the opponent has crops"""
    device: str = "auto"


@dataclass
class State:
    """What changes while an opponent trains."""

    model: MaskRCNN
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    """over all processes that the training took"""


class Views(Dataset[Example]):
    """Images and targets with N full masks, asked for by (seed, step, place in the batch, image)."""

    def __init__(self, task: Task, opponent: Opponent) -> None:
        self.task = task
        self.opponent = opponent

    def __getitem__(self, key: tuple[int, int, int, int]) -> Example:
        """The image as torchvision takes it, and boxes, labels and masks."""
        image, label_maps = self.task.data.image(key[-1]), self.task.data.label_maps(key[-1])
        rng = np.random.default_rng(np.random.SeedSequence(key))
        if self.opponent.crop:
            image, label_maps = window(image, label_maps, round(self.opponent.crop / self.task.zoom), rng)
        if self.opponent.turns:
            image, label_maps = turned(image, label_maps, rng)
        return pixels_of(image, self.opponent), cells_of(label_maps)


def window(image: Array, label_maps: Array, side: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """A random square of both; where the image is smaller, it lies on glass."""
    height, width = image.shape[:2]
    missing = ((0, max(0, side - height)), (0, max(0, side - width)))
    image = np.pad(image, (*missing, (0, 0)), constant_values=GLASS)
    label_maps = np.pad(label_maps, ((0, 0), *missing))
    y, x = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
    return image[y : y + side, x : x + side], label_maps[:, y : y + side, x : x + side]


def turned(image: Array, label_maps: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Both after the same random flips and quarter turns."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    image, label_maps = np.rot90(image, turns), np.rot90(label_maps, turns, (1, 2))
    return (image[:, ::-1], label_maps[:, :, ::-1]) if mirrored else (image, label_maps)


def cells_of(label_maps: Array) -> dict[str, Tensor]:
    """The target of label maps (C, h, w): boxes (N, 4), labels (N,), masks (N, h, w) uint8."""
    cells = target(label_maps, MINIMUM_AREA)
    masks = torch.zeros(len(cells["ids"]), *label_maps.shape[1:], dtype=torch.uint8)
    corners = cells["boxes"].int().tolist()
    for mask, label, number, (x1, y1, x2, y2) in zip(masks, cells["labels"], cells["ids"], corners, strict=True):
        mask[y1:y2, x1:x2] = cells["label_maps"][label - 1, y1:y2, x1:x2] == number
    return {"boxes": cells["boxes"], "labels": cells["labels"], "masks": masks}


def batches(task: Task, opponent: Opponent, seed: int, steps: range) -> DataLoader[list[Example]]:
    """The batches of these steps; each follows from seed and step."""
    sizes = np.array([np.prod(task.data.records[index].size_hw) for index in task.train], np.float64)
    keys = [_keys(task, opponent, seed, step, sizes / sizes.sum()) for step in steps]
    on_gpu = device_of(task.device).type != "cpu"
    return DataLoader(
        Views(task, opponent),  # type: ignore[arg-type]
        batch_sampler=keys,
        num_workers=GPU_WORKERS if on_gpu else 0,
        pin_memory=on_gpu and opponent.crop > 0,  # the masks of whole images are gigabytes
        collate_fn=list,
        generator=torch.Generator(),
    )


def _keys(task: Task, opponent: Opponent, seed: int, step: int, shares: Array) -> list[tuple[int, int, int, int]]:
    """What a step shows: images drawn by their share of all pixels, or one shuffled pass over them after another."""
    if opponent.by_size:
        drawn = np.random.default_rng([seed, step]).choice(len(shares), opponent.batch, p=shares).tolist()
    else:
        shown = range(step * opponent.batch, (step + 1) * opponent.batch)
        drawn = [_shuffled(len(shares), seed, number // len(shares))[number % len(shares)] for number in shown]
    return [(seed, step, place, task.train[index]) for place, index in enumerate(drawn)]


def _shuffled(count: int, seed: int, number: int) -> list[int]:
    """The order of one pass over so many images."""
    order: list[int] = np.random.default_rng([seed, number]).permutation(count).tolist()
    return order


def begin(task: Task, opponent: Opponent, seed: int) -> State:
    """A new training."""
    torch.manual_seed(seed)
    model = build(opponent, task.data.num_cell_classes, device_of(task.device))
    parameters = [each for each in model.parameters() if each.requires_grad]
    rate, decay = opponent.learning_rate, opponent.weight_decay
    if opponent.optimizer == "sgd":
        return State(model, torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=True))
    return State(model, torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=True))


def train_steps(
    state: State, batches: Iterable[list[Example]], opponent: Opponent, steps: int, seed: int
) -> Iterator[float]:
    """The loss of each step, as it is done; linear warm-up, then a cosine to 0 at `steps`.

    Raises FloatingPointError for a loss that is not finite.
    """
    model, optimizer = state.model.train(), state.optimizer
    device = next(model.parameters()).device
    for batch in batches:
        torch.manual_seed(int(np.random.SeedSequence([seed, state.step]).generate_state(1)[0]))  # of the samplers
        for group in optimizer.param_groups:
            group["lr"] = opponent.learning_rate * rate_factor(state.step, steps, WARMUP_FRACTION)
        images = [image.to(device, non_blocking=True) for image, _ in batch]
        targets = [{name: each.to(device, non_blocking=True) for name, each in cells.items()} for _, cells in batch]
        loss = torch.stack(list(model(images, targets).values())).sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"opponent: loss {float(loss.detach())} at step {state.step + 1}; lower its learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if opponent.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), opponent.clip_norm)
        optimizer.step()
        state.step += 1
        yield float(loss.detach())


def fit(task: Task, opponent: Opponent, steps: int, seed: int, folder: Path, tell: Tell) -> State:
    """The trained network; goes on from folder/last.pt, to the weights that no interruption would give."""
    state, last = begin(task, opponent, seed), folder / "last.pt"
    if last.exists():
        restore(state, last)
    since = saved = time.perf_counter()
    for loss in train_steps(state, batches(task, opponent, seed, range(state.step, steps)), opponent, steps, seed):
        now = time.perf_counter()
        state.seconds, since = state.seconds + now - since, now
        if now - saved > SAVE_EVERY or state.step == steps:
            save(state, last)
            saved = since = time.perf_counter()
            tell(f"step {state.step} of {steps}, loss {loss:.3f}, {state.seconds / state.step:.2f} s a step")
    return state


def save(state: State, path: Path) -> None:
    """Write all that changes, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
    with whole(path) as partial:
        torch.save(content | {"step": state.step, "seconds": state.seconds}, partial)


def restore(state: State, path: Path) -> None:
    """Read what `save` wrote."""
    content = read_tensors(path)
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step, state.seconds = content["step"], content["seconds"]
