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


def first_line(error: BaseException, most: int = 300) -> str:
    """What an error says in its first line, at most so many characters; its class where it says nothing.

    >>> first_line(ValueError("no such run\\n  at line 3")), first_line(TimeoutError())
    ('no such run', 'TimeoutError')
    """
    lines = str(error).strip().splitlines()
    return short(lines[0] if lines else type(error).__name__, most)
