"""Many image files -> a folder of predictions, which goes on where it stopped.

`predictions.jsonl` in the folder holds the settings on its first line and then a line for each finished image.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cellseg import formats
from cellseg.predictor import Model
from cellseg.scale import mpp_of
from cellseg.slides import open_image
from cellseg.whole_files import sweep, write_whole

ENDINGS = (".tif", ".tiff", ".svs", ".ndpi", ".png", ".jpg", ".jpeg")
"""of the files that are taken from a folder"""
JOURNAL = "predictions.jsonl"


@dataclass(frozen=True)
class Job:
    """An image to predict."""

    path: Path
    name: str
    """of its files in the output folder: the file's without its ending, after that of its subfolder"""
    number: int
    """counted from 1: its image_id"""


@dataclass(frozen=True)
class Done:
    """A finished image."""

    image: str
    """its path, whole"""
    bytes: int
    changed: float
    """when the file was last written: a new file is predicted anew"""
    cells: Mapping[str, int]
    """of each class"""


def jobs_of(paths: Sequence[Path], out: Path) -> list[Job]:
    """The images of files and folders, folders searched through, in order of name.

    Raises FileNotFoundError for a path that is not there or a folder without images, ValueError for two images whose
    predictions would have the same name.
    """
    found: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                each
                for each in path.rglob("*")
                if each.suffix.lower() in ENDINGS and each.is_file() and out.resolve() not in each.resolve().parents
            )
            if not inside:
                raise FileNotFoundError(f"{path}: expected images ({', '.join(ENDINGS)}), found none; name the files")
            found += [(each, each.relative_to(path).with_suffix("").as_posix()) for each in inside]
        elif path.exists():
            found.append((path, path.stem))
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; is the name right?")
    first: dict[str, Path] = {}
    for path, name in found:
        other = first.setdefault(name, path)
        if other != path:
            raise ValueError(
                f"{path}: its predictions would be named as those of {other}; predict one of them into another --out"
            )
    return [Job(path, name, number) for number, (name, path) in enumerate(first.items(), start=1)]


class Journal:
    """What is finished in a folder; several processes may add to it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open, or begin. Raises ValueError where the folder holds predictions with other settings."""
        settings = json.loads(json.dumps(settings))  # as it is read
        self.path = folder / JOURNAL
        self.done: dict[str, Done] = {}
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{JOURNAL}.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            lines = self._lines()
            if lines:
                self._check(lines[0], settings)
                self.done = {each["image"]: Done(**each) for each in lines[1:]}
            if not lines or not self.path.read_bytes().endswith(b"\n"):  # the last line was cut off
                whole = [dict(settings), *(asdict(each) for each in self.done.values())]
                write_whole("".join(f"{json.dumps(each)}\n" for each in whole), self.path)

    def has(self, job: Job, paths: Sequence[Path]) -> bool:
        """Whether an image, as it is now, was finished, and its predictions are all there."""
        done = self.done.get(str(job.path.resolve()))
        if done is None or not all(path.exists() for path in paths):
            return False
        status = job.path.stat()
        return (done.bytes, done.changed) == (status.st_size, status.st_mtime)

    def add(self, job: Job, cells: Mapping[str, int]) -> None:
        """Note that an image is finished."""
        status = job.path.stat()
        done = Done(str(job.path.resolve()), status.st_size, status.st_mtime, cells)
        line = f"{json.dumps(asdict(done))}\n".encode()
        with self.path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(line)
            os.fsync(file.fileno())
        self.done[done.image] = done

    def counts(self, jobs: Sequence[Job]) -> dict[str, int]:
        """Cells of each class in the finished images among the jobs, whoever finished them."""
        every = {each["image"]: each["cells"] for each in self._lines()[1:]}
        total: Counter[str] = Counter()
        for job in jobs:
            total.update(every.get(str(job.path.resolve()), {}))
        return dict(total)

    def _lines(self) -> list[dict[str, Any]]:
        """All lines but one that was cut off at the end."""
        if not self.path.exists():
            return []
        found = []
        for number, line in enumerate(lines := self.path.read_text().splitlines(), start=1):
            try:
                found.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise ValueError(
                        f"{self.path}: line {number}: expected JSON, found {line:.60}; delete the file to start anew"
                    ) from error
        return found

    def _check(self, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        others = [name for name in settings if found.get(name) != settings[name]]
        if others:
            name = others[0]
            raise ValueError(
                f"{self.path.parent}: holds predictions with {name} {found.get(name)}, this call has {settings[name]}; "
                f"choose another --out, or start anew with --overwrite"
            )


def predict_files(
    model: Model,
    jobs: Sequence[Job],
    journal: Journal,
    chosen: Sequence[str],
    *,
    mpp: float | None = None,
    channel_order: str = "rgb",
    tell: Callable[[float], None] = lambda done: None,
    failed: Callable[[Job, Exception], None],
) -> None:
    """Predict and write what is not finished; `tell` hears how many images are, and how much of the next.

    An image that cannot be read or predicted goes to `failed`, and the next follows. Raises OSError where predictions
    cannot be written.
    """
    folder = journal.path.parent
    for place in {folder, *((folder / job.name).parent for job in jobs)}:
        sweep(place)
    for number, job in enumerate(jobs):

        def tell_share(share: float, before: int = number) -> None:
            tell(before + share)

        tell(number)
        if journal.has(job, [formats.path_of(folder, job.name, each) for each in chosen]):
            continue
        try:
            image = open_image(job.path, channel_order, model.color)
            scale = mpp or mpp_of(job.path)
            cells = model.cells(image, scale, str(job.path), tell_share)
        except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
            failed(job, error)
            continue
        place = folder / job.name
        formats.write(cells, image, place.parent, place.name, chosen, image_id=job.number, file_name=job.path.name)
        journal.add(job, cells.of_classes())
    tell(len(jobs))
