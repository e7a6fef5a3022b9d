from cellseg.colors import COLORS, color_of


def test_the_colours_of_classes_differ_and_start_again_after_the_last():
    assert len(set(COLORS)) == len(COLORS) >= 4
    assert color_of(1) == COLORS[0]
    assert color_of(len(COLORS)) == COLORS[-1]
    assert color_of(len(COLORS) + 1) == COLORS[0]
