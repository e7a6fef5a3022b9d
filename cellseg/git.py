"""Which commit the package was checked out from."""

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def git_commit(folder: Path = PACKAGE) -> str:
    """The commit that the folder was checked out from, or "unknown"."""
    return _git(folder, "rev-parse", "HEAD") or "unknown"


def git_dirty(folder: Path = PACKAGE) -> str:
    """Whether files of that commit were changed: "true", "false" or "unknown"."""
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return "unknown" if changes is None else str(bool(changes)).lower()


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of the folder; None without git or a repository."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
