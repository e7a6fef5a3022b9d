import pytest

from cellseg.data_folder import noted


def test_an_error_of_a_file_is_noted_and_ends_its_block_alone():
    broken, done = [], []
    for number in range(3):
        with noted(broken):
            if number == 1:
                raise ValueError("a.tif: expected a tif")
            done.append(number)
    assert (broken, done) == (["a.tif: expected a tif"], [0, 2])


def test_an_error_of_the_machine_is_noted_with_what_to_do():
    broken = []
    with noted(broken):
        raise PermissionError(13, "Permission denied", "a.tif")
    assert broken == ["a.tif: permission denied; choose another folder, or change who may read and write this one"]


def test_without_a_list_it_is_raised():
    with pytest.raises(FileNotFoundError, match=r"a\.tif"), noted(None):
        raise FileNotFoundError("a.tif")


def test_an_error_of_our_own_is_raised_always():
    broken: list[str] = []
    with pytest.raises(KeyError), noted(broken):
        raise KeyError("a")
    assert broken == []
