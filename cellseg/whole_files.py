"""Text files, written whole or not at all."""

import os
from pathlib import Path


def write_whole(text: str, path: Path) -> None:
    """Write to a temporary file beside the path, then rename: a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
