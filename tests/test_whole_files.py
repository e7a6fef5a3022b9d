import fcntl
import multiprocessing
import os
import signal
from zipfile import ZipFile

import pytest

from cellseg import whole_files
from cellseg.whole_files import only_writer, require_place, sweep, whole, whole_folder, write_whole, zip_member


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


@pytest.mark.parametrize("named", [None, ".a.txt.1.partial"])
def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path, monkeypatch, named):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(OSError, match="No space left") as caught, whole(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device", named and str(tmp_path / named))
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_filled_whole_and_what_was_in_it_stays(tmp_path):
    (tmp_path / "kept").write_text("kept")
    with whole_folder(tmp_path) as unfinished:
        (unfinished / "sub").mkdir()
        (unfinished / "sub" / "a").write_text("a")
        assert {each.name for each in tmp_path.iterdir()} == {"kept", unfinished.name, f"{unfinished.name}.partial"}
    assert {each.name for each in tmp_path.iterdir()} == {"kept", "sub"}
    assert (tmp_path / "sub" / "a").read_text() == "a"


def test_a_folder_that_cannot_be_filled_is_as_it_was_before(tmp_path):
    with pytest.raises(ValueError, match="broken"), whole_folder(tmp_path / "new" / "deep"):
        raise ValueError("broken")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "filename"), [(28, "source/a.tif"), (28, None), (13, "source/a.tif")])
def test_a_full_disk_names_the_folder_and_other_errors_their_file(tmp_path, number, filename):
    with pytest.raises(OSError, match="no") as caught, whole_folder(tmp_path / "new"):
        raise OSError(number, "no", filename)
    assert caught.value.filename == (str(tmp_path / "new") if number == 28 else filename)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_swept_away_and_what_a_living_one_writes_is_not(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    killed = context.Process(target=write_for_ever, args=(tmp_path / "killed", ready))
    killed.start()
    assert ready.wait(60)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(60)
    with whole(tmp_path / "living") as partial:
        assert {each.name for each in tmp_path.iterdir()} == {f".killed.{killed.pid}.partial", partial.name}
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [partial]
    assert [each.name for each in tmp_path.iterdir()] == ["living"]


def write_for_ever(path, ready):
    with whole(path):
        ready.set()
        signal.pause()


def test_a_folder_that_a_killed_writer_left_goes_with_the_next_and_that_of_a_living_one_stays(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    killed = context.Process(target=fill_for_ever, args=(tmp_path, ready))
    killed.start()
    assert ready.wait(60)
    with whole_folder(tmp_path) as unfinished:
        (unfinished / "b").mkdir()
        assert (tmp_path / f".unfinished.{killed.pid}" / "a").exists()
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(60)
    assert (tmp_path / f".unfinished.{killed.pid}" / "a").exists()
    with whole_folder(tmp_path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["b"]


def fill_for_ever(path, ready):
    with whole_folder(path) as unfinished:
        (unfinished / "a").write_text("half of it")
        ready.set()
        signal.pause()


def test_what_is_not_ours_is_not_swept_away(tmp_path):
    names = {".hidden", ".notes.2024", "a.1.partial", ".a.partial"}
    for name in names:
        (tmp_path / name).write_text("of the user")
    sweep(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == names
    sweep(tmp_path / "not there")


def test_a_file_that_was_swept_away_before_its_writer_had_locked_it_is_written_all_the_same(tmp_path, monkeypatch):
    lock, swept = fcntl.flock, []

    def late(file, how):
        if how == fcntl.LOCK_EX and not swept:  # the writer's
            swept.append(True)
            sweep(tmp_path)
            assert not list(tmp_path.iterdir())
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_whole("text", tmp_path / "some.txt")
    assert swept
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("some.txt", "text")]


def test_a_place_for_a_file_is_a_name_in_a_folder_that_is_there(tmp_path):
    require_place(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"none: no such folder; create it or choose another for a\.png"):
        require_place(tmp_path / "none" / "a.png")
    with pytest.raises(IsADirectoryError):
        require_place(tmp_path)


def test_a_folder_has_one_writer_until_it_has_ended_or_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_files, "LEAVING_SECONDS", 0.0)
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    writer = context.Process(target=write_long, args=(tmp_path, begun))
    writer.start()
    assert begun.wait(60)
    with pytest.raises(ValueError, match=rf"^{tmp_path}: another process writes there"), only_writer(tmp_path):
        pass
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    for _ in range(2):
        with only_writer(tmp_path):
            pass


def write_long(folder, begun):
    with only_writer(folder):
        begun.set()
        signal.pause()


def test_a_member_of_a_zip_has_the_same_bytes_whenever_it_is_written(tmp_path):
    member = zip_member("a.txt")
    assert (member.filename, member.date_time) == ("a.txt", (1980, 1, 1, 0, 0, 0))
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "a" * 100)
    with ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("a.txt") == b"a" * 100
        assert archive.infolist()[0].compress_size < 100
