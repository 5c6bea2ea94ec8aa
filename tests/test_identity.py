"""Names, sizes and fingerprints of sources that are not opened."""

import os
import shutil

import numpy as np
import pytest

from rnndet.video.image import write_image
from rnndet.video.sink import VideoSink
from rnndet.video.sources.identity import (
    END_BYTES,
    fingerprint,
    source_bytes,
    source_name,
    source_names,
)
from rnndet.video.sources.open import open_source


@pytest.fixture
def sources(tmp_path):
    """A video, a folder of images and one image."""
    image = np.zeros((16, 16, 3), np.uint8)
    with VideoSink(tmp_path / "a b.mp4", size_hw=(16, 16), fps=25) as sink:
        sink.write(image)
    (tmp_path / "shots.of.today").mkdir()
    for number in range(3):
        write_image(tmp_path / "shots.of.today" / f"{number}.png", image)
    write_image(tmp_path / "one.PNG".lower(), image)
    return [str(tmp_path / name) for name in ("a b.mp4", "shots.of.today", "one.png")]


def test_name_equals_the_name_of_the_opened_source(sources, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path / "shots.of.today")
    for source in [*sources, "."]:
        with open_source(source) as opened:
            assert source_name(source) == opened.info.name
    assert source_name("0") == "camera-0"


def test_names_are_all_different():
    sources = ["x/clip.mp4", "y/clip.mp4", "clip-2.mp4", "z/Clip.mp4", "missing/clip.avi"]
    assert source_names(sources) == ["clip", "clip-2", "clip-2-2", "Clip-3", "clip-4"]


def test_name_does_not_depend_on_the_sources_after_it():
    sources = ["a/clip.mp4", "b/clip.mp4", "c/clip.mp4"]
    assert source_names(sources[:2]) == source_names(sources)[:2]


def test_size_is_that_of_the_file_or_of_the_images(sources):
    video, folder, _ = sources
    assert source_bytes(video) == os.stat(video).st_size
    (one,) = {file.stat().st_size for file in os.scandir(folder)}
    assert source_bytes(folder) == 3 * one


@pytest.mark.parametrize("source", ["/no/such.mp4", "0", "rtsp://host/1", "a\0b"])
def test_size_of_a_source_without_files_is_0(source):
    assert source_bytes(source) == 0


def test_fingerprint_is_the_same_for_a_copy(sources, tmp_path):
    for source in sources[:2]:
        copy = tmp_path / "copy" / os.path.basename(source)
        copy.parent.mkdir(exist_ok=True)
        (shutil.copytree if os.path.isdir(source) else shutil.copyfile)(source, copy)
        os.utime(copy, (0, 0))
        assert fingerprint(str(copy)) == fingerprint(source)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("size", [5, END_BYTES, END_BYTES + 9, 3 * END_BYTES])
def test_fingerprint_changes_with_either_end_of_a_file(tmp_path, place, size):
    path = tmp_path / "v.mp4"
    data = bytearray(size)
    path.write_bytes(data)
    before = fingerprint(str(path))
    data[place] = 1
    path.write_bytes(data)
    assert fingerprint(str(path)) != before


def test_fingerprint_of_a_folder_changes_with_another_image(sources):
    before = fingerprint(sources[1])
    shutil.copyfile(sources[2], os.path.join(sources[1], "9.png"))
    assert fingerprint(sources[1]) != before


def test_fingerprint_of_a_url_hides_its_password():
    assert "secret" not in str(fingerprint("rtsp://me:secret@host/1"))


def test_pattern_of_images_is_identified_by_its_files(tmp_path):
    for number in (1, 2):
        write_image(tmp_path / f"f{number}.png", np.zeros((4, 4, 3), np.uint8))
    for pattern in (str(tmp_path / "f%d.png"), str(tmp_path / "*.png")):
        with open_source(pattern) as opened:
            assert source_name(pattern) == opened.info.name
        assert source_bytes(pattern) == sum(f.stat().st_size for f in tmp_path.glob("*.png"))
        before = fingerprint(pattern)
        write_image(tmp_path / "f3.png", np.zeros((4, 4, 3), np.uint8))
        assert fingerprint(pattern) != before
        (tmp_path / "f3.png").unlink()


def test_fingerprint_of_a_url_does_not_depend_on_its_password():
    url = "rtsp://me:secret@cam/1?pwd=secret"
    assert source_name(url) == "cam_1"
    assert source_bytes(url) == 0
    assert fingerprint(url)["text"] == "rtsp://***@cam/1?***"
    assert fingerprint(url) == fingerprint(url.replace("me:secret", "you:other"))
    assert fingerprint(url) != fingerprint(url.replace("pwd", "camera"))
