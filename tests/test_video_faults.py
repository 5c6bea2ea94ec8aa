"""Faulty videos: damaged, truncated, with wrong headers, hostile names and unusual images."""

import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from rnndet.errors import InputError
from rnndet.video.sink import VideoSink
from rnndet.video.sources.open import VideoFile, open_source


def write_avi(path: Path, *, length: int = 10, size_hw: tuple[int, int] = (48, 64)) -> Path:
    """Frame k is plain grey of brightness 20 + 20 k."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, size_hw[::-1])
    assert writer.isOpened()
    for k in range(length):
        writer.write(np.full((*size_hw, 3), 20 + 20 * k, np.uint8))
    writer.release()
    return path


def write_noise(path: Path, *, length: int = 60) -> Path:
    noise = np.random.default_rng(0)
    with VideoSink(path, size_hw=(120, 160), fps=25) as sink:
        for _ in range(length):
            sink.write(noise.integers(0, 256, (120, 160, 3), np.uint8))
    return path


def test_damage_in_the_middle_of_an_mp4_loses_few_frames(tmp_path):
    path = write_noise(tmp_path / "clip.mp4")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    assert len(data) > 10 * 20_000
    data[middle : middle + 20_000] = np.random.default_rng(1).bytes(20_000)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        counts = source.counts
    assert len(frames) >= 57  # 95 %
    assert counts.failed == sum(frame.gap for frame in frames)
    assert frames[-1].index == len(frames) + counts.failed - 1
    assert frames[-1].time == pytest.approx(frames[-1].index / 25, abs=1e-3)
    assert not any(frame.restart for frame in frames)


def test_lost_frame_is_a_gap_of_the_next_frame(tmp_path):
    path = write_avi(tmp_path / "clip.avi")
    data = bytearray(path.read_bytes())
    starts = [k for k in range(len(data)) if data[k : k + 2] == b"\xff\xd8"]
    for k in (0, 4, 5):
        data[starts[k] : starts[k] + 200] = bytes(200)
    path.write_bytes(data)
    with VideoFile(path) as source:
        assert [(f.index, f.gap) for f in source if f.gap] == [(1, 1), (6, 2)]
        assert (source.counts.decoded, source.counts.failed) == (7, 3)
        assert not source.counts.is_complete


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_truncated_file_is_reported_and_a_complete_file_is_not(tmp_path, suffix):
    path = write_avi(tmp_path / f"clip{suffix}", length=12, size_hw=(240, 320))
    with open_source(path) as source:
        assert (len(list(source)), source.counts.truncated) == (12, False)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_source(path) as source:
        assert 0 < len(list(source)) < 11
        assert source.counts.truncated


def test_excerpt_of_a_complete_file_is_not_truncated(tmp_path):
    with VideoFile(write_avi(tmp_path / "clip.avi")) as source:
        frames = iter(source)
        next(frames)
        assert source.counts.is_complete


def set_rate(path: Path, rate: int, scale: int) -> Path:
    """Frames per second of an avi: rate / scale, in the header of its stream."""
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 8
    struct.pack_into("<II", data, at + 20, scale, rate)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("rate", "scale", "expected"),
    [
        (0, 1, None),
        (25, 0, None),
        (10**9, 1, None),
        (1000, 1, 1000),
        (1, 10, Fraction(1, 10)),
        (30000, 1001, Fraction(30000, 1001)),
    ],
)
def test_impossible_frame_rate_is_replaced_and_reported(tmp_path, rate, scale, expected):
    path = set_rate(write_avi(tmp_path / "clip.avi"), rate, scale)
    with open_source(path) as source:
        frames = list(source)
        fps, notes = source.info.fps, source.notes
    assert len(frames) == 10
    assert all(b.time > a.time for a, b in pairwise(frames))
    if expected is not None:
        assert (fps, notes) == (expected, ())
        assert frames[9].time == pytest.approx(9 / expected)
    elif fps is None:
        assert "25 per second is assumed" in notes[0]
        assert frames[9].time <= 9 / 25 + 1e-6
    with VideoSink(tmp_path / "out.mp4", size_hw=(48, 64), fps=fps) as sink:
        for frame in frames:
            sink.write(frame.image)


@pytest.mark.parametrize("size_hw", [(2, 2), (121, 161)])
def test_odd_and_tiny_images(tmp_path, size_hw):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mkv"
    image = np.arange(size_hw[0] * size_hw[1] * 3, dtype=np.uint32).reshape(*size_hw, 3) % 256
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = size_hw
        stream.pix_fmt = "bgr0"
        frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))
    (frame,) = open_source(path)
    assert np.array_equal(frame.image, image)


def test_large_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write_avi(tmp_path / "clip.avi")
    with open_source(path, max_pixels=48 * 64) as source:
        assert source.info.width == 64

    def decode(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr("rnndet.video.sources.open.decode", decode)
    with pytest.raises(InputError, match=r"clip\.avi: 64x48 is more than 3071 pixels") as error:
        open_source(path, max_pixels=48 * 64 - 1)
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    "form", ["yuv420p10le", "yuv444p", "gray", "gray16le", "yuva420p", "bgra", "gbrp10le"]
)
def test_images_of_every_depth_and_kind_are_eight_bit_rgb(tmp_path, form):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mkv"
    across = np.linspace(20, 230, 64).astype(np.uint8)
    image = np.broadcast_to(
        across[None, :, None], (48, 64, 3)
    ).copy()  # grey, so that all can hold it
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, form
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=form)))
        container.mux(stream.encode(None))
    frames = list(open_source(path))
    assert len(frames) == 3
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8
    assert np.abs(frames[0].image.astype(int) - image).max() <= 3


def test_times_of_a_variable_frame_rate_are_exact(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    times = [0, 20, 60, 61, 400, 440, 2000, 2033]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoFile(path) as source:
        assert [f.time for f in source] == pytest.approx([t / 1000 for t in times], abs=1e-3)
        assert source.counts.is_complete


HOSTILE = [
    "concat:clip.avi|clip.avi", "http:clip.avi", "file:clip.avi", "pipe:0", "-i.avi", "%06d.avi",
    "a\nb.avi", "a'b\"c.avi", "$(x).avi", "clip.avi?x=1", "dash.avi#t", "\u202egnp.avi",
    "a b.avi", "größe.avi", "a|b.avi", "%d.avi", "c:d.avi",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_a_file_or_an_error(tmp_path, monkeypatch, name):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.chdir(tmp_path)
    write_avi(tmp_path / "clip.avi", length=3)
    with pytest.raises(InputError):
        open_source(name)
    write_avi(tmp_path / "other.avi", length=2).rename(tmp_path / name)
    with open_source(name) as source:
        assert len(list(source)) == 2
        assert "/" not in source.info.name


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile clip.avi\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.avi\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 33\n",
        '<?xml version="1.0"?><MPD><Period><BaseURL>clip.avi</BaseURL></Period></MPD>',
    ],
    ids=["ffconcat", "hls", "sdp", "dash"],
)
def test_playlist_with_the_name_of_a_video_is_refused(tmp_path, text):
    write_avi(tmp_path / "clip.avi")
    for name in ("list.mp4", "list.ts", "list.m3u8"):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InputError, match="not a video"):
            open_source(path)
