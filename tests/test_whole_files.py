import multiprocessing
import os

import pytest

from cellseg.whole_files import whole, write_whole


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "some.txt"
    for text in ("one\r\ntwo\n", "é"):
        write_whole(text, path)
        assert path.read_bytes() == text.encode()
    assert [each.name for each in tmp_path.iterdir()] == ["some.txt"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "some.txt"
    write_whole("before", path)
    with pytest.raises(UnicodeEncodeError):
        write_whole("\ud800", path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["some.txt"]


def test_processes_that_write_the_same_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "some.txt"
    texts = [str(number) * 100_000 for number in range(4)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_often, args=(text, path)) for text in texts]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert path.read_text() in texts


def write_often(text, path):
    for _ in range(50):
        write_whole(text, path)


def test_a_file_that_is_written_in_parts_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "some.bin"
    path.write_bytes(b"before")
    with whole(path) as partial:
        partial.write_bytes(b"af")
        assert path.read_bytes() == b"before"
        with partial.open("ab") as file:
            file.write(b"ter")
    assert path.read_bytes() == b"after"
    assert [each.name for each in tmp_path.iterdir()] == ["some.bin"]


@pytest.mark.parametrize("named", [None, ".a.txt.1"])
def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path, monkeypatch, named):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(OSError, match="No space left") as caught, whole(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device", named and str(tmp_path / named))
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
