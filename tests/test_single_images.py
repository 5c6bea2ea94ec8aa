"""Single images joined to videos by folder and frame number."""

from pathlib import Path

import pytest
from labelled_sets import write_images

from rnndet.data.formats.single_images import LabelledImage, images_below, videos_of
from rnndet.data.problems import Problems


def grouped(*paths, pictures="frames", problems=None):
    images = {path: LabelledImage(Path(f"{path}.jpg"), Path(f"{path}.txt")) for path in paths}
    return {
        name: {index: str(pair.image) for index, pair in frames.items()}
        for name, frames in videos_of(
            images, pictures, Problems() if problems is None else problems
        )
    }


@pytest.mark.parametrize(
    ("path", "video", "frame"),
    [
        ("yard/12", "yard", 12),
        ("yard/frame_000012", "yard/frame", 12),
        ("frame-7", "frame", 7),
        ("12", "images", 12),
        ("yard", "yard", 0),
        ("a1b2", "a1b", 2),
        ("my yard (1)/img 5", "my_yard_1/img", 5),
        ("yard_mp4-12_jpg.rf.0a1B2c3d", "yard_mp4", 12),
        ("yard_mp4-12_PNG.rf.0a1B2c3d", "yard_mp4", 12),
    ],
)
def test_video_and_frame_follow_from_the_name(path, video, frame):
    assert grouped(path) == {video: {frame: f"{path}.jpg"}}


def test_frames_are_in_the_order_of_their_numbers_and_videos_in_that_of_their_names():
    found = grouped("b/10", "b/9", "a10/1", "a9/1")
    assert list(found) == ["a9", "a10", "b"]
    assert list(found["b"]) == [9, 10]


def test_stills_are_videos_of_one_frame():
    assert grouped("b/10", "b/9", pictures="stills") == {
        "b/9": {0: "b/9.jpg"}, "b/10": {0: "b/10.jpg"},
    }  # fmt: skip


def test_prefix_of_label_studio_is_no_part_of_the_name():
    """It is other for each uploaded file."""
    paths = ("a/3f2a1b9c-yard_000001", "a/00aabbcc-yard_000002", "a/9c2a1b00-street_1")
    assert grouped(*paths) == {
        "a/street": {1: f"{paths[2]}.jpg"},
        "a/yard": {1: f"{paths[0]}.jpg", 2: f"{paths[1]}.jpg"},
    }


@pytest.mark.parametrize(
    ("paths", "videos"),
    [
        (("b1c66a42-6f7d-01", "b1c66a42-6f7d-02"), ["b1c66a42-6f7d"]),  # names of videos
        (("3f2a1b9c-yard_1", "yard_2"), ["3f2a1b9c-yard", "yard"]),
        (("3f2a1b9c-yard_1",), ["3f2a1b9c-yard"]),
        (("0000f77c-6257be58", "0000f77d-12345678"), ["0000f77c-6257be", "0000f77d"]),
    ],
)
def test_other_names_with_eight_hexadecimal_digits_are_whole(paths, videos):
    assert list(grouped(*paths)) == videos


def test_numbers_that_are_times_give_the_order():
    found = grouped("a/1623456789500", "a/1623456789100")
    assert found == {"a": {0: "a/1623456789100.jpg", 1: "a/1623456789500.jpg"}}


def test_two_images_of_one_frame_are_a_problem():
    problems = Problems()
    assert grouped("a/1", "a/01", problems=problems) in (
        {"a": {1: "a/1.jpg"}},
        {"a": {1: "a/01.jpg"}},
    )
    (problem,) = problems.found
    assert "frame 1 of the video a" in problem.reason and 'pictures = "stills"' in problem.reason


def test_hidden_and_other_files_are_left_out(tmp_path):
    write_images(*(tmp_path / name for name in ("a/1.jpg", "a/.2.jpg", ".b/1.jpg", "a/3.PNG")))
    (tmp_path / "a" / "1.txt").write_text("")
    assert images_below(tmp_path) == {"a/1": tmp_path / "a/1.jpg", "a/3": tmp_path / "a/3.PNG"}
