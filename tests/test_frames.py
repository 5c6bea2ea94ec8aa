"""Frames of a labelled set, and the cache of decoded frames."""

import numpy as np
import pytest

from conftest import write_coco_vid
from rnndet.data import frames
from rnndet.data.formats import read_set
from rnndet.errors import InputError


@pytest.fixture
def file_video(tmp_path):
    write_coco_vid(tmp_path, videos=1, as_files=True)
    return read_set("coco_vid", tmp_path, "train").videos[0]


def test_images_are_read_in_order_as_rgb(coco_vid_root):
    video = read_set("coco_vid", coco_vid_root, "train").videos[0]
    found = list(frames.iterate(video))
    assert [f.index for f in found] == [0, 1, 2, 3, 4, 5]
    assert found[1].image[25, 12].tolist() == [200, 60, 30]  # RGB: the object's red


def test_frames_of_a_video_file_are_equal_by_number_and_in_order(file_video):
    in_order = [f.image for f in frames.iterate(file_video)]
    by_number = frames.load(file_video, [file_video.frames[i] for i in (4, 1)])
    assert np.array_equal(by_number[0], in_order[4])
    assert np.array_equal(by_number[1], in_order[1])


def test_complete_cache_is_used(file_video, tmp_path):
    cache = tmp_path / "cache"
    assert not frames.is_cached(file_video, cache)
    assert frames.make_cache(file_video, cache) == 6
    assert frames.is_cached(file_video, cache)
    assert frames.make_cache(file_video, cache) == 0
    direct = next(iter(frames.iterate(file_video))).image.astype(int)
    cached = next(iter(frames.iterate(file_video, cache=cache))).image.astype(int)
    assert np.abs(direct - cached).mean() < 3  # JPEG


def test_interrupted_cache_leaves_nothing(file_video, tmp_path, monkeypatch):
    written = []

    def write_three(path, image, *, quality):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)

    monkeypatch.setattr(frames, "write_image", write_three)
    with pytest.raises(KeyboardInterrupt):
        frames.make_cache(file_video, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_of_a_changed_video_is_not_used(file_video, tmp_path):
    frames.make_cache(file_video, tmp_path / "cache")
    with file_video.path.open("ab") as file:
        file.write(b"more")
    assert not frames.is_cached(file_video, tmp_path / "cache")


def test_labelled_frame_beyond_the_end_is_an_error(tmp_path):
    write_coco_vid(tmp_path, videos=1, length=6, as_files=True)
    text = (tmp_path / "annotations" / "train.json").read_text()
    (tmp_path / "annotations" / "train.json").write_text(
        text.replace('"frame_id": 5', '"frame_id": 50')
    )
    video = read_set("coco_vid", tmp_path, "train").videos[0]
    with pytest.raises(InputError, match="ends before frame 50"):
        list(frames.iterate(video))


def test_cache_with_a_damaged_note_is_not_used(file_video, tmp_path):
    frames.make_cache(file_video, tmp_path / "cache")
    (tmp_path / "cache" / "v0" / "source.json").write_text("{")
    assert not frames.is_cached(file_video, tmp_path / "cache")
