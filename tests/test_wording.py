from cellseg.wording import several, short


def test_one_is_singular_and_all_else_plural_with_separators():
    assert [several(count, "cell") for count in (0, 1, 2, 12345)] == ["0 cells", "1 cell", "2 cells", "12,345 cells"]


def test_a_name_that_fits_stays_and_a_longer_one_has_just_the_room():
    assert short("abcd", 4) == "abcd"
    assert short("abcde", 4) == "abc…"
