"""Arguments are expanded into sources; an existing name is a file, whatever characters it has."""

import os
from pathlib import Path

import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.video.image import write_image
from rnndet.video.sources.listing import expand
from rnndet.video.sources.open import open_source


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png"):
            write_image(path, np.zeros((4, 6, 3), np.uint8))
        else:
            path.write_bytes(b"x")


def test_pattern_gives_its_matches_in_natural_order(folder):
    touch("clips/c10.mp4", "clips/c2.mp4", "clips/other.avi")
    assert expand("clips/*.mp4") == ["clips/c2.mp4", "clips/c10.mp4"]
    assert expand("**/*.avi") == ["clips/other.avi"]


@pytest.mark.parametrize("name", ["a*.mp4", "[x].mp4", "f%06d.jpg", "http:x", "a?.avi"])
def test_existing_name_stands_for_itself(folder, name):
    touch(name, "ab.avi")
    assert expand(name) == [name]


@pytest.mark.parametrize("name", ["nothing.mp4", "no*.mp4", "rtsp://camera/1?x=[1]", "0"])
def test_missing_name_stands_for_itself(folder, name):
    assert expand(name) == [name]


def test_images_of_a_folder_are_a_single_source(folder):
    touch("b/1.jpg", "b/2.jpg", "a/1.jpg", "a/notes.mp4", "a/2.png")
    assert expand("*/*.jpg") == ["a/*.jpg", "b/*.jpg"]
    assert expand("a/*") == ["a/*", "a/notes.mp4"]
    assert expand("**") == ["a/*", "a/notes.mp4", "b/*"]
    with open_source("a/*") as images:
        assert [frame.index for frame in images] == [0, 1]
        assert images.info.name == "a"


def test_folder_with_special_characters_is_taken_literally(folder):
    touch("a[1]/1.jpg", "a[1]/2.jpg", "a1/1.jpg")
    with open_source("a[1]/*.jpg") as images:
        assert images.info.length == 2


def test_list_is_relative_to_its_folder(folder):
    touch("d/a b.mp4", "d/c.mp4", "d/e.mp4", "d/7")
    absolute = str(folder / "d" / "c.mp4")
    lines = [
        "\ufeff# mine",
        "",
        "  a b.mp4 ",
        absolute,
        "[ce].mp4",
        "gone.mp4",
        "http://h/x",
        "0",
        "7",
    ]
    Path("d/list.txt").write_text("\r\n".join(lines), encoding="utf-8")
    assert expand("d/list.txt") == [
        "d/a b.mp4", absolute, "d/c.mp4", "d/e.mp4", "d/gone.mp4", "http://h/x", "0", "d/7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "lists no source"), (b"# only\n\n", "lists no source"), (b"\xff\xd8\xff", "UTF-8")],
)
def test_bad_list_is_named_with_its_reason(folder, content, reason):
    Path("list.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"list\.txt.*{reason}"):
        expand("list.txt")


NOT_UTF8 = b"caf\xe9.mp4", b"gone\xe9.mp4"


def test_list_may_have_names_that_are_not_utf8(folder):
    touch("d/a.mp4", os.fsdecode(b"d/" + NOT_UTF8[0]))
    Path("d/list.txt").write_bytes(b"\n".join([b"a.mp4", *NOT_UTF8, "größe.mp4".encode()]))
    names = [b"d/a.mp4", *(b"d/" + name for name in NOT_UTF8), "d/größe.mp4".encode()]
    assert [os.fsencode(source) for source in expand("d/list.txt")] == names


def test_list_whose_names_that_are_not_utf8_are_all_missing_is_no_text(folder):
    """As a binary file, or a text in UTF-16."""
    touch("a.mp4")
    Path("list.txt").write_bytes(b"a.mp4\n" + NOT_UTF8[1])
    with pytest.raises(InputError, match=r"list\.txt: not a text file in UTF-8"):
        expand("list.txt")


def test_lines_of_a_list_end_where_a_file_system_allows_no_more(folder):
    touch("a\x85b.mp4", "c\u2028d.mp4")
    Path("list.txt").write_text("a\x85b.mp4\nc\u2028d.mp4\r\n", encoding="utf-8")
    assert expand("list.txt") == ["a\x85b.mp4", "c\u2028d.mp4"]


def test_nested_list_is_not_expanded(folder):
    Path("a.txt").write_text("b.txt\n")
    Path("b.txt").write_text("a.txt\n")
    assert expand("a.txt") == ["b.txt"]
    with pytest.raises(InputError, match=r"b\.txt"):
        open_source("b.txt")


def test_pattern_without_a_match_is_an_error_when_opened(folder):
    for pattern in ("no*.jpg", "gone/%06d.jpg"):
        with pytest.raises(InputError, match="no file matches"):
            open_source(pattern)
