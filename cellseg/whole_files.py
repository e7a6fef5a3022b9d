"""Files and folders, written whole or not at all."""

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZipInfo

from cellseg.user_errors import FULL

PARTIAL = re.compile(r"\..+\.\d+\.partial")
"""what is being written to .<name>.<process id>.partial; beside it, without that ending, a folder that is filled"""
LEAVING_SECONDS = 30.0
"""in which what a killed process had started, such as data workers, notices that and lets go of its folder"""


def require_place(path: Path) -> None:
    """Raise where no file can have this path: it is a folder, or its folder is missing."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder; create it or choose another for {path.name}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside the path to write to, which then takes its place: a reader never sees half a file.

    An OSError of writing names the path.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _held(partial):
            yield partial
            partial.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(partial)):  # writing names no file, opening the one beside it
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """The file, locked while its writer lives; made again where it was swept away before it was locked."""
    while True:
        with partial.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _lies_at(partial, file):
                yield
                return


def _lies_at(path: Path, file: IO[bytes]) -> bool:
    """Whether an open file is the one that has this path now."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, whose entries then move into `folder`; after an error `folder` is as it was.

    An OSError of writing names `folder`, which is made where it is missing. What a killed process left there goes.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    partial = folder / f".unfinished.{os.getpid()}.partial"
    unfinished = partial.with_suffix("")
    try:
        with _held(partial):
            unfinished.mkdir()
            yield unfinished
            for path in sorted(unfinished.iterdir()):
                path.rename(folder / path.name)
    except OSError as error:
        if error.errno in FULL or str(error.filename).startswith(str(unfinished)):
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        partial.unlink(missing_ok=True)
        for each in made:
            with suppress(OSError):  # it is not empty
                each.rmdir()


class InUseError(ValueError):
    """Another process writes there."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Alone among the processes that write to a folder in this way. Raises InUseError where another one does."""
    until = time.monotonic() + LEAVING_SECONDS
    with (folder / ".lock").open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise InUseError(f"{folder}: another process writes there; wait for its end, or stop it") from error
            time.sleep(0.1)
        yield


def sweep(folder: Path) -> None:
    """Delete what killed processes left of the files and folders that they were writing there."""
    for path in folder.glob(".*.partial"):
        with suppress(OSError):  # it is gone, or held by its writer
            if PARTIAL.fullmatch(path.name):
                with path.open("rb") as left:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _lies_at(path, left):
                        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                        path.unlink()


def write_whole(text: str, path: Path) -> None:
    """Write a text file whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def zip_member(name: str) -> ZipInfo:
    """A deflated member of a zip, dated 1980, so that the bytes depend neither on the clock nor on the machine."""
    member = ZipInfo(name)
    member.compress_type, member.external_attr, member.create_system = ZIP_DEFLATED, 0o644 << 16, 3
    return member
