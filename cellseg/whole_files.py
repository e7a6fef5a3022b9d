"""Files, written whole or not at all."""

import os
from pathlib import Path


def write_whole(content: str | bytes, path: Path) -> None:
    """Write bytes, or text as UTF-8, to a temporary file beside the path, then rename: no reader sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
