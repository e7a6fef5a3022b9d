"""The colours of classes, in every picture and every format that has colours."""

Color = tuple[int, int, int]
COLORS: tuple[Color, ...] = ((255, 235, 0), (0, 190, 255), (255, 100, 0), (255, 255, 255), (0, 160, 70), (0, 0, 0))
"""of classes 1, 2, …: off the purples and pinks of H&E, the first four apart to colour-blind eyes too"""


def color_of(label: int) -> Color:
    """The colour of a class 1..C; colours start again where there are more classes."""
    return COLORS[(label - 1) % len(COLORS)]
