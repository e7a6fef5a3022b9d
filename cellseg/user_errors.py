"""Errors that the user can mend, in one line; those of the machine with what to do. Imports nothing heavy."""

import errno
from collections.abc import Iterator

OUT_OF_MEMORY = (
    *("OutOfMemoryError", "can't allocate memory", "CUDA out of memory"),
    *("could not create a primitive", "bad_alloc", "can't start new thread"),
)
"""errors of torch, of oneDNN, C++ and threads, by their names and by what they say: torch is not imported for it"""
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_DATABASE = "database or disk is full"
"""what SQLite says, whoever passes it on"""
AGAIN = "give the same command again: what was finished is kept"
MENDED = {
    errno.ENOSPC: f"no space left on the disk; free some and {AGAIN}",
    errno.EDQUOT: f"the disk quota is used up; free some space and {AGAIN}",
    errno.EEXIST: "a file is there already, where a folder was to be made; choose another path",
    errno.EROFS: "the disk is read-only; choose a folder that can be written to",
    errno.EACCES: "permission denied; choose another folder, or change who may read and write this one",
    errno.EPERM: "permission denied; choose another folder, or change who may read and write this one",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another path",
    errno.EISDIR: "a folder, where a file was expected; name a file in it",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n 4096`, or use fewer workers",
}


def in_one_line(error: BaseException) -> str | None:
    """What to tell of an error that the user can mend, None of any other.

    >>> in_one_line(OSError(28, "No space left on device", "runs/last.pt"))
    'runs/last.pt: no space left on the disk; free some and give the same command again: what was finished is kept'
    >>> in_one_line(KeyError("our own mistake"))
    """
    if isinstance(error, MemoryError) or any(sign in f"{type(error).__name__} {error}" for sign in OUT_OF_MEMORY):
        reason = (str(error).splitlines() or ["no more to be had"])[0][:200]
        return (
            "out of memory; a training takes less with a smaller --train.batch, --augment.crop, --predict.tile-batch "
            "or --predict.detections, a prediction with fewer views and zooms, and both take the machine's with "
            f"--device cpu: {reason}"
        )
    behind = list(_behind(error))  # what cleans up after a full disk fails too, and hides it
    if full := [each for each in behind if isinstance(each, OSError) and each.errno in FULL]:
        error = full[0]
    elif any(FULL_DATABASE in str(each) for each in behind):
        return f"{str(error).partition(': ')[0]}: {MENDED[errno.ENOSPC]}"
    if isinstance(error, OSError) and error.errno in MENDED:
        where = f"{error.filename}: " if error.filename else ""
        return where + MENDED[error.errno]
    return str(error) if isinstance(error, ValueError | FloatingPointError | OSError) else None


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of or followed."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
