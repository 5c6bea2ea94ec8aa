"""PyAV reads what OpenCV cannot, with the same indices, times and images."""

import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.structures import VideoInfo
from rnndet.video.sources.av_file import AvFile, is_plain_stream
from rnndet.video.sources.open import VideoFile, open_source, read_frames

av = pytest.importorskip("av")

os.environ.setdefault("SVT_LOG", "0")


def encode(
    path: Path,
    *,
    codec: str = "libx264",
    size_hw: tuple[int, int] = (48, 64),
    length: int = 8,
    times: list[int] | None = None,
    form: str | None = None,
) -> Path:
    """Frame k has grey 20 + 20 k modulo 256, but its top left quarter is white; `times` in ms."""
    try:
        av.codec.Codec(codec, "w")
    except (av.FFmpegError, ValueError):
        pytest.skip(f"PyAV without {codec}")
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for k in range(length):
            image = np.full((*size_hw, 3), (20 + 20 * k) % 256, np.uint8)
            image[: size_hw[0] // 2, : size_hw[1] // 2] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[k], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, to: int | list[int]) -> Path:
    """Set the matrix of the track header of an mp4 as a phone does, to these degrees or values."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix comes after 40 bytes
    matrix = to
    if isinstance(to, int):
        cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[to]
        matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path


def test_av1_is_read_without_an_option(tmp_path):
    path = encode(tmp_path / "clip.mp4", codec="libsvtav1", size_hw=(64, 64))
    with open_source(path) as source:
        frames = list(source)
        assert source.info == VideoInfo("clip", str(path), 64, 64, Fraction(25), 8)
        assert (source.counts.decoded, source.counts.is_complete) == (8, True)
        assert [f.index for f in source] == list(range(8))  # a second time
    assert [f.time for f in frames] == pytest.approx([k / 25 for k in range(8)])
    for k, frame in enumerate(frames):
        assert frame.image.dtype == np.uint8
        assert abs(frame.image[40:, 40:].mean() - (20 + 20 * k)) < 4
    assert np.array_equal(read_frames(path, [5])[0], frames[5].image)


def test_av1_without_pyav_names_what_to_install(tmp_path, monkeypatch):
    path = encode(tmp_path / "clip.mp4", codec="libsvtav1", size_hw=(64, 64))
    monkeypatch.setattr("rnndet.video.sources.open.has_pyav", lambda: False)
    try:
        source = open_source(path)
    except InputError as error:
        assert "rnndet[video]" in str(error)
        assert "\n" not in str(error)
    else:
        assert len(list(source)) == 8  # an OpenCV that has the decoder


def test_images_and_times_are_those_of_opencv(tmp_path):
    path = encode(tmp_path / "clip.mp4", times=[0, 17, 60, 61, 200, 240, 500, 900])
    with VideoFile(path) as one, AvFile(path) as other:
        for a, b in zip(one, other, strict=True):
            assert (a.index, a.gap) == (b.index, b.gap)
            assert a.time == pytest.approx(b.time, abs=1e-6)
            assert np.abs(a.image.astype(int) - b.image).max() <= 1


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured_by_both(tmp_path, degrees):
    path = turn(encode(tmp_path / "clip.mp4"), degrees)
    corner = {90: (0, -1), 180: (-1, -1), 270: (-1, 0)}[degrees]  # where the white quarter goes
    images = []
    for kind in (VideoFile, AvFile):
        with kind(path) as source:
            frame = next(iter(source))
            assert source.info.rotation == degrees
            assert (source.info.height, source.info.width) == frame.image.shape[:2]
        images.append(frame.image)
    assert images[0].shape == ((48, 64, 3) if degrees == 180 else (64, 48, 3))
    assert images[0][corner].min() > 240
    assert images[0].mean() < 128  # the other three quarters are dark
    assert np.array_equal(*images)


MIRRORS = {  # a, b, c, d of the matrix: where the white quarter, upper left as stored, goes
    (-1, 0, 0, 1): (0, -1),
    (1, 0, 0, -1): (-1, 0),
    (0, 1, 1, 0): (0, 0),
    (0, -1, -1, 0): (-1, -1),
}


@pytest.mark.parametrize("values", MIRRORS)
def test_mirrored_video_is_shown_as_in_its_mirror(tmp_path, values):
    path = encode(tmp_path / "clip.mp4")
    stored = next(iter(open_source(path))).image
    a, b, c, d = values
    turn(path, [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
    with open_source(path) as source:
        image = next(iter(source)).image
        assert (source.info.height, source.info.width) == image.shape[:2]
        assert source.info.rotation == (90 if b else 0)
        assert source.notes == ()
    expected = stored.transpose(1, 0, 2) if b else stored
    expected = expected[:, ::-1] if a + c < 0 else expected
    expected = expected[::-1] if b + d < 0 else expected
    assert np.array_equal(image, expected)
    assert image[MIRRORS[values]].min() > 240
    assert np.array_equal(read_frames(path, [0])[0], image)


def test_mirrored_video_without_pyav_is_a_warning(tmp_path, monkeypatch):
    path = turn(encode(tmp_path / "clip.mp4"), [-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30])
    monkeypatch.setattr("rnndet.video.sources.open.has_pyav", lambda: False)
    with open_source(path) as source:
        list(source)
        (note,) = source.notes
    assert "to be shown mirrored" in note


@pytest.mark.parametrize(("suffix", "form"), [(".ts", "mpegts"), (".h264", "h264")])
def test_change_of_size_is_reported(tmp_path, suffix, form):
    small = encode(tmp_path / f"a{suffix}", form=form)
    large = encode(tmp_path / f"b{suffix}", form=form, size_hw=(96, 160))
    path = tmp_path / f"both{suffix}"
    path.write_bytes(small.read_bytes() + large.read_bytes() + small.read_bytes())
    assert is_plain_stream(path)
    with open_source(path) as source:
        frames = list(source)
        assert "64x48 to 160x96 at frame 8" in source.notes[0]
    assert len(frames) == 24
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert [frame.index for frame in frames if frame.restart] == [8, 16]
    assert all(b.time > a.time for a, b in pairwise(frames))


def test_playlist_cannot_name_other_files(tmp_path):
    encode(tmp_path / "clip.mp4")
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile clip.mp4\n")
    with pytest.raises(InputError, match="not a video"):
        AvFile(path)


def test_file_with_audio_only_is_refused(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"sound\.mp4: no video stream, only audio"):
        open_source(path)


def test_damaged_stream_loses_frames_and_not_the_video(tmp_path):
    path = encode(
        tmp_path / "clip.ts", form="mpegts", length=12, size_hw=(96, 128), codec="mpeg2video"
    )
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1000] = np.random.default_rng(0).bytes(1000)
    path.write_bytes(data)
    with AvFile(path) as source:
        frames = list(source)
    assert len(frames) >= 9
    assert abs(frames[-1].image[80:, 100:].mean() - 240) < 8


def test_large_images_are_refused_before_they_are_decoded(tmp_path):
    path = encode(tmp_path / "clip.ts", form="mpegts")
    with pytest.raises(InputError, match="raise `max_pixels`"):
        open_source(path, max_pixels=48 * 64 - 1)


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
def test_half_a_file_is_truncated_and_the_complete_file_is_not(tmp_path, kind):
    path = encode(tmp_path / "clip.mkv", length=50, codec="mpeg4", size_hw=(96, 128))
    with kind(path) as source:
        assert len(list(source)) == 50
        assert source.counts.is_complete
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with kind(path) as source:
        assert 10 < len(list(source)) < 45
        assert source.counts.truncated
