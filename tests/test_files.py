"""Atomic files and folders: the old or the complete new content, never a part."""

import pytest

from rnndet.errors import OutputError
from rnndet.system.files import atomic_file, atomic_folder, write_text


def test_file_is_complete_and_nothing_else_is_left(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "text")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "text"


def test_error_in_the_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as part:
        part.write_text("new")
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_folder_that_is_a_file_is_one_line_that_names_the_path(tmp_path):
    write_text(tmp_path / "file", "")
    with pytest.raises(OutputError, match=r"file/a\.txt: cannot be written \("):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_temporary_file_keeps_the_suffix_that_encoders_go_by(tmp_path):
    with atomic_file(tmp_path / "a.png", durable=True) as part:
        assert part.suffix == ".png"
        part.write_bytes(b"image")
    assert (tmp_path / "a.png").read_bytes() == b"image"


# folders


def write_folder(path, *names):
    with atomic_folder(path) as part:
        for name in names:
            (part / name).write_text("text")


def test_folder_replaces_the_old_one_as_a_whole(tmp_path):
    write_folder(tmp_path / "new" / "v1.2", "a", "b")
    write_folder(tmp_path / "new" / "v1.2", "c")
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert sorted(files) == ["new", "new/v1.2", "new/v1.2/c"]


def test_error_in_the_block_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "a"
    write_folder(folder, "old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as part:
        (part / "new").write_text("text")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in folder.iterdir()] == ["old"]


def test_folder_starts_empty_after_a_killed_run(tmp_path):
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "left").write_text("text")
    write_folder(tmp_path / "a", "new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


def test_folder_below_a_file_is_one_line_that_names_the_path(tmp_path):
    write_text(tmp_path / "file", "")
    with pytest.raises(OutputError, match=r"file/a: cannot be written \("):
        write_folder(tmp_path / "file" / "a")
