"""Sources return every frame in order, and refuse bad input in one line."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.video.image import read_image, write_image
from rnndet.video.sources.base import safe_name
from rnndet.video.sources.capture import frame_rate
from rnndet.video.sources.clock import Clock
from rnndet.video.sources.image_folder import ImageFolder, natural_key
from rnndet.video.sources.open import VideoFile, open_source, read_frames


def grey_of(index: int) -> int:
    return 20 + 12 * index


def write_clip(
    path: Path, *, length: int = 10, size_hw: tuple[int, int] = (48, 64), fps: float = 25
) -> Path:
    """Frame k is plain grey of brightness 20 + 12 k; MJPG in .avi, mp4v in .mp4."""
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    height, width = size_hw
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, (width, height))
    assert writer.isOpened()
    for index in range(length):
        writer.write(np.full((height, width, 3), grey_of(index), np.uint8))
    writer.release()
    return path


def write_grey(path: Path, value: int = 0, *, size_hw: tuple[int, int] = (8, 10)) -> Path:
    write_image(path, np.full((*size_hw, 3), value, np.uint8))
    return path


def assert_one_line(error: pytest.ExceptionInfo, *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_every_frame_comes_once_and_in_order(tmp_path, suffix):
    with open_source(write_clip(tmp_path / f"clip{suffix}")) as source:
        frames = list(source)
        assert [f.index for f in frames] == list(range(10))
        assert (source.info.width, source.info.height, source.info.length) == (64, 48, 10)
        assert source.counts.decoded == 10
        assert source.counts.failed == 0
    for k, frame in enumerate(frames):
        assert abs(frame.image.mean() - grey_of(k)) < 5
        assert frame.time == pytest.approx(k / 25, abs=1e-6)


def test_second_iteration_starts_again(tmp_path):
    source = open_source(write_clip(tmp_path / "clip.avi"))
    first, second = ([f.image.mean() for f in source] for _ in range(2))
    assert first == second
    assert len(first) == 10


def test_colours_are_rgb(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "red.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (32, 32)
    )
    writer.write(np.full((32, 32, 3), (0, 0, 255), np.uint8))  # red in OpenCV's order
    writer.release()
    (frame,) = open_source(tmp_path / "red.avi")
    red, green, blue = frame.image.reshape(-1, 3).mean(0)
    assert red > 200
    assert max(green, blue) < 50


def test_fps_stays_a_fraction(tmp_path):
    source = open_source(write_clip(tmp_path / "ntsc.mp4", fps=30000 / 1001))
    assert source.info.fps == Fraction(30000, 1001)


def test_impossible_rates_are_none():
    for fps in (0, -1, 1e9, float("nan"), 1e-3):
        assert frame_rate(fps) is None
    assert frame_rate(29.97) == Fraction(30000, 1001)
    assert (frame_rate(25), frame_rate(12.5)) == (25, Fraction(25, 2))


def test_single_frame_of_two_by_two_pixels(tmp_path):
    (frame,) = open_source(write_clip(tmp_path / "one.avi", length=1, size_hw=(2, 2)))
    assert frame.image.shape == (2, 2, 3)


def test_wrong_suffix_is_no_obstacle(tmp_path):
    path = write_clip(tmp_path / "clip.avi").rename(tmp_path / "clip.mp4")
    assert len(list(open_source(path))) == 10


def test_garbage_in_the_middle_keeps_later_indices(tmp_path):
    path = write_clip(tmp_path / "clip.avi", length=20)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xd8", len(data) // 2)  # the start of an image
    data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        assert source.counts.failed == 20 - len(frames) <= 2
    assert frames[-1].index == 19
    assert abs(frames[-1].image.mean() - np.clip(grey_of(19), 0, 255)) < 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am text\n" * 40, "not a video"),
        (bytes(5000), "not a video"),
        (np.random.default_rng(0).bytes(5000), "not a video"),
    ],
)
def test_file_that_is_no_video_is_refused(tmp_path, content, reason):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        open_source(path)
    assert_one_line(error, "bad.mp4", reason)


def test_folder_is_not_a_video_file(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        VideoFile(tmp_path)


def test_mp4_without_index_is_refused(tmp_path):
    path = write_clip(tmp_path / "cut.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError) as error:
        open_source(path)
    assert_one_line(error, "cut.mp4", "incomplete")


def test_video_without_decodable_frame_names_the_codec(tmp_path):
    path = write_clip(tmp_path / "clip.avi", length=3)
    data = bytearray(path.read_bytes())
    at = data.find(b"\xff\xd8")
    while at >= 0:
        data[at : at + 300] = bytes(300)
        at = data.find(b"\xff\xd8", at + 300)
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        open_source(path)
    assert_one_line(error, "clip.avi", "AV1", "codec MJPG")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        open_source(tmp_path / "nothing.mp4")
    assert_one_line(error, "nothing.mp4", "no such file")


def test_folder_of_images_in_natural_order(tmp_path):
    for k in (10, 9, 1, 2):
        write_grey(tmp_path / f"f{k}.png", k)
    (tmp_path / "notes.txt").write_text("not an image")
    with open_source(tmp_path, name="mine") as source:
        assert [int(f.image[0, 0, 0]) for f in source] == [1, 2, 9, 10]
        assert (source.info.name, source.info.length, source.info.fps) == ("mine", 4, None)


def test_one_image_is_a_source(tmp_path):
    (frame,) = open_source(write_grey(tmp_path / "one.png", 7))
    assert frame.image.shape == (8, 10, 3)
    assert frame.time == 0


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        open_source(tmp_path)
    assert_one_line(error, tmp_path.name, "no images")


def test_image_of_another_size_is_refused(tmp_path):
    write_grey(tmp_path / "a.png")
    write_grey(tmp_path / "b.png", size_hw=(9, 10))
    with pytest.raises(InputError) as error:
        list(ImageFolder(tmp_path))
    assert_one_line(error, "b.png", "10x9", "10x8")


def test_read_frames_equals_iteration_in_any_order(tmp_path):
    path = write_clip(tmp_path / "clip.mp4")
    images = [f.image for f in VideoFile(path)]
    for index, image in zip((7, 0, 7, 3), read_frames(path, [7, 0, 7, 3]), strict=True):
        assert np.array_equal(image, images[index])
    assert read_frames(path, []) == []


def test_read_frames_names_file_and_frame_when_missing(tmp_path):
    path = write_clip(tmp_path / "clip.avi")
    with pytest.raises(InputError) as error:
        read_frames(path, [3, 10])
    assert_one_line(error, "clip.avi", "frame 10")


def test_times_follow_timestamps_and_never_decrease():
    clock = Clock(Fraction(10))
    stamps = [500.0, 520.0, 620.0, 620.0, 0.0]
    times = [clock.time(k, stamp) for k, stamp in enumerate(stamps)]
    assert times == pytest.approx([0, 0.02, 0.12, 0.22, 0.32])


def test_times_without_timestamps_follow_the_rate():
    clock = Clock(Fraction(30000, 1001))
    assert [clock.time(k, 0.0) for k in range(3)] == pytest.approx([0, 1001 / 30000, 2002 / 30000])


def test_natural_key_orders_numbers_by_value():
    names = ["f10.jpg", "f2.jpg", "F1.jpg", "f02.jpg"]
    assert sorted(names, key=natural_key) == ["F1.jpg", "f02.jpg", "f2.jpg", "f10.jpg"]


def test_safe_name_fits_a_folder():
    assert safe_name("../a b/ç:1") == "a_b_ç_1"
    assert safe_name("...") == "video"
    assert len(safe_name("x" * 300)) == 80


def test_image_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    write_image(tmp_path / "größe.png", image)
    assert np.array_equal(read_image(tmp_path / "größe.png"), image)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such"), (b"", "empty"), (b"text", "not an image")]
)
def test_bad_image_is_named_with_its_reason(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert_one_line(error, "bad.jpg", reason)
