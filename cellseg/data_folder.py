"""What a data folder must hold, told before anything heavy is loaded, and what of it is broken."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellseg.user_errors import in_one_line


def require_data(root: Path) -> None:
    """Raise FileNotFoundError, with the layouts expected and the ways on, where root is not there."""
    if not root.exists():
        raise FileNotFoundError(missing(root, "no such file or folder"))


@contextmanager
def noted(broken: list[str] | None) -> Iterator[None]:
    """Where there is a list for it, an error that a file causes within is written there and ends the block alone."""
    try:
        yield
    except (ValueError, OSError) as error:
        if broken is None:
            raise
        broken.append(in_one_line(error) or str(error))


def missing(root: Path, what: str) -> str:
    """What is missing, and what to do: what was meant perhaps, else the layouts."""
    if next(root.glob("*/image.tif"), None):
        return f"{root}: looks like the train folder itself; give the folder around it, with this one named train"
    if (root / "image.tif").exists():
        return f"{root}: looks like one training image; give the folder around its train folder"
    if inner := next(root.glob("*/train"), None):
        return f"{root}: {what}; did you mean {inner.parent}?"
    return (
        f"{root}: {what}; expected train/<name>/image.tif with class1.tif, class2.tif, … in it, or annotations.json "
        "(COCO) with images/; `cellseg sample data/` writes a data set to try"
    )
