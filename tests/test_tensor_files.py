import pickle
import warnings

import pytest
import torch

from cellseg.tensor_files import read_tensors


def test_tensors_and_plain_values_are_read(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"tensor": torch.arange(3), "name": "a", "pair": (1, 2.5)}, path)
    found = read_tensors(path)
    assert found["tensor"].tolist() == [0, 1, 2]
    assert (found["name"], found["pair"]) == ("a", (1, 2.5))


class Touch:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"model": {}, "more": [value]}])
def test_pickled_objects_are_refused_without_a_warning_and_never_run(tmp_path, write, wrap):
    path = tmp_path / "a.pt"
    write(wrap(Touch(tmp_path / "ran")), path)
    with warnings.catch_warnings(action="error"), pytest.raises(ValueError, match="pickled objects") as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"II*\0 a tif", b"{}"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected tensors and plain values") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        read_tensors(path)


def test_a_file_that_may_not_be_read_is_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none.pt")
