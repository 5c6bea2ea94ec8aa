"""system/files.py: a file has its old or its new content, never a part of it."""

import pytest

from rnndet.errors import OutputError
from rnndet.system.files import atomic_file, write_text


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
