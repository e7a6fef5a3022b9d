"""Numbers and names in few words."""


def several(count: int, noun: str) -> str:
    """A number and what it counts.

    >>> several(1, "image"), several(1200, "cell")
    ('1 image', '1,200 cells')
    """
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def short(name: str, most: int) -> str:
    """A name of at most so many characters, cut where it is longer.

    >>> short("adenocarcinoma", 8)
    'adenoca…'
    """
    return name if len(name) <= most else f"{name[: most - 1]}…"
