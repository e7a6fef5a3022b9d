"""What a data folder must hold, told before anything heavy is loaded, and what of it is broken."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        broken.append(str(error))


def missing(root: Path, what: str) -> str:
    """What is missing, what was meant perhaps, the layouts, and the ways on."""
    hint = ""
    if next(root.glob("*/image.tif"), None):
        hint = f"{root} looks like the train folder itself: give the folder around it, with this one named train\n"
    elif (root / "image.tif").exists():
        hint = f"{root} looks like one training image: give the folder around its train folder\n"
    elif inner := next(root.glob("*/train"), None):
        hint = f"did you mean {inner.parent}?\n"
    return (
        f"{root}: {what}\n{hint}expected one of\n"
        f"  {root}/train/<name>/image.tif with class1.tif, class2.tif, …; pixel = cell id\n"
        f"  {root}/annotations.json or *.coco.json (COCO), images beside it or in images/\n"
        "put the data there, or write a data set to try with `cellseg sample data/`"
    )
