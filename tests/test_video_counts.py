"""The number of frames of a file that a player shows, and files that end before it."""

import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from timed_videos import encode

from rnndet.data.formats import read_set
from rnndet.data.frames import iterate
from rnndet.errors import InputError
from rnndet.video.sources.av_file import AvFile
from rnndet.video.sources.edit_list import is_mirrored, shown_length, shown_seconds, shows_nothing
from rnndet.video.sources.excerpt import Excerpt
from rnndet.video.sources.open import VideoFile, count_frames, open_source

pytest.importorskip("av")
KINDS = pytest.mark.parametrize("kind", [VideoFile, AvFile])


def cut_copy(path: Path, *, before: int = 21, after: int = 39, **options) -> Path:
    """As a cut without encoding leaves it: frames before the start are stored, and not shown."""
    return encode(
        path, range(-before, after), codec="mpeg4", options={"bf": "2", "g": "60"}, **options
    )


@KINDS
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path, kind, suffix):
    with kind(cut_copy(tmp_path / f"clip{suffix}")) as source:
        assert source.info.length == 39
        frames = list(source)
        assert source.counts.is_complete
        assert source.counts.expected == 39
    assert [frame.index for frame in frames] == list(range(39))
    assert [frame.time for frame in frames] == pytest.approx([k / 30 for k in range(39)])


@KINDS
def test_single_hidden_frame_of_a_short_clip_is_not_missing(tmp_path, kind):
    with kind(cut_copy(tmp_path / "clip.mp4", before=1, after=8)) as source:
        assert len(list(source)) == 8
        assert source.counts.is_complete


@KINDS
def test_truncated_file_with_an_edit_list_is_truncated(tmp_path, kind):
    path = cut_copy(tmp_path / "clip.mp4", after=300, container_options={"movflags": "+faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 4 // 5])
    with kind(path) as source:
        assert 0 < len(list(source)) < 280
        assert source.counts.truncated


@KINDS
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".asf", ".avi", ".flv"])
def test_late_start_is_not_a_missing_part(tmp_path, kind, suffix):
    """The headers of mkv and asf state the end of the video, which is not its length."""
    codec = {".asf": "msmpeg4v3", ".flv": "flv1"}.get(suffix, "mpeg4")
    path = encode(tmp_path / f"clip{suffix}", range(20, 50), codec=codec)
    with kind(path) as source:
        frames = list(source)
        assert len(frames) == 30
        assert source.counts.is_complete
        if suffix != ".avi":  # has empty frames before the start
            assert source.info.length == 30


@KINDS
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_truncated_file_with_a_late_start_is_truncated(tmp_path, kind, suffix):
    path = encode(
        tmp_path / f"clip{suffix}", range(300, 390), codec="mpeg4", options={"g": "1", "qmax": "2"},
        container_options={"movflags": "+faststart"} if suffix == ".mp4" else {},
    )  # fmt: skip
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with kind(path) as source:
        assert 0 < len(list(source)) < 80
        assert source.counts.truncated


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def movie(
    *edits: tuple[int, int],
    handler: bytes = b"vide",
    scale: int = 1000,
    fragments: bytes = b"",
) -> bytes:
    """The boxes of an mp4 without samples; edits are (duration, media time)."""
    entries = b"".join(struct.pack(">IiI", *edit, 1 << 16) for edit in edits)
    edit_list = box(b"elst", struct.pack(">II", 0, len(edits)), entries)
    track = box(
        b"trak", box(b"edts", edit_list),
        box(b"mdia", box(b"hdlr", struct.pack(">II4s", 0, 0, handler))),
    )  # fmt: skip
    header = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, scale, 0))
    return box(b"ftyp", b"isom") + box(b"free", bytes(9)) + box(b"moov", header, track, fragments)


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        (movie((2000, 0)), 2),
        (movie((500, -1), (2000, 300), (1000, 9000)), 3),  # -1: a pause before the first frame
        (movie((0, 0)), None),  # fragments of unknown length follow
        (movie((2000, 0), handler=b"soun"), None),
        (movie((2000, 0), scale=0), None),
        (movie(), None),
        (movie((2000, 0))[:-30], None),
        (b"\x1a\x45\xdf\xa3" + bytes(60), None),
        (b"", None),
        (box(b"ftyp", b"isom") + struct.pack(">I4s", 3, b"moov") + bytes(20), None),
        (box(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"moov", 2**63), None),
    ],
)
def test_length_that_an_edit_list_shows(tmp_path, content, seconds):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert shown_seconds(path) == seconds


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (movie((0, 0)), True),
        (movie((0, -1)), False),
        (movie((0, 0), (100, 0)), False),
        (movie((100, -1), (0, 0)), True),
        (movie((100, 0)), False),
        (movie(), False),
        (movie((0, 0), fragments=box(b"mvex")), False),  # of unknown length
        (movie((0, 0))[:-30], False),
        (b"", False),
    ],
)
def test_edit_list_that_shows_nothing(tmp_path, content, expected):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert shows_nothing(path) == expected


def test_edit_list_shorter_than_half_a_frame_shows_one_frame(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(movie((10, 0)))
    assert shown_length(path, 120, Fraction(30)) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_mp4_whose_edit_list_shows_nothing_is_named(tmp_path, count):
    """FFmpeg decodes none of its frames; the codec is not to blame."""
    path = encode(tmp_path / "clip.mp4", range(20 if count == 2 else 0, 50), codec="mpeg4")
    data = bytearray(path.read_bytes())
    at = data.find(b"elst") + 12
    assert int.from_bytes(data[at - 4 : at], "big") == count  # the first of two is a pause
    data[at + 12 * (count - 1) : at + 12 * (count - 1) + 4] = bytes(4)
    path.write_bytes(data)
    for kind in (VideoFile, AvFile, open_source):
        with pytest.raises(
            InputError, match=r"clip\.mp4: its edit list has a duration of 0"
        ) as error:
            kind(path)
        assert "ffmpeg -ignore_editlist 1 -i IN -c copy OUT.mp4" in str(error.value)


@pytest.mark.parametrize(("version", "head"), [(0, 40), (1, 52)])
@pytest.mark.parametrize(("a", "d"), [(-1, 1), (1, -1), (1, 1), (-1, -1)])
def test_track_header_of_either_version_tells_if_a_movie_is_mirrored(tmp_path, version, head, a, d):
    matrix = struct.pack(">9i", a << 16, 0, 0, 0, d << 16, 0, 0, 0, 1 << 30)
    header = box(b"tkhd", bytes([version]), bytes(head - 1), matrix, bytes(8))
    media = box(b"mdia", box(b"hdlr", struct.pack(">II4s", 0, 0, b"vide")))
    path = tmp_path / "clip.mp4"
    path.write_bytes(box(b"ftyp", b"isom") + box(b"moov", box(b"trak", header, media)))
    assert is_mirrored(path) == (a != d)


def test_millions_of_boxes_are_not_read(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(box(b"ftyp", b"isom") + box(b"free") * 200_000 + movie((2000, 0)))
    assert shown_seconds(path) is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_counted_frames_are_those_that_are_read(tmp_path, suffix):
    codec = "mpeg2video" if suffix == ".ts" else "mpeg4"
    path = encode(tmp_path / f"clip{suffix}", range(23), codec=codec)
    assert count_frames(path) == 23 == len(list(open_source(path)))
    assert count_frames(cut_copy(tmp_path / "cut.mp4")) == 39


def labelled(folder: Path, video: Path, *, last: int) -> Path:
    folder.mkdir(parents=True)
    video.rename(folder / video.name)
    rows = [f"{frame},1,10,10,20,20,1,1,1\n" for frame in (1, 5, last)]
    (folder / f"{video.stem}.txt").write_text("".join(rows))
    return folder / video.name


@pytest.mark.parametrize(("last", "pause"), [(39, False), (30, False), (30, True)])
def test_unlabelled_end_of_a_labelled_video_is_what_decoding_gives(tmp_path, last, pause):
    """Also in a variable frame rate, for which a file states a length and no number of frames."""
    if pause:
        ticks = [*range(20), *range(500, 519)]
        video = encode(tmp_path / "clip.mkv", ticks, codec="mpeg4")
    else:
        video = cut_copy(tmp_path / "clip.mp4")
    labelled(tmp_path / "set" / "val", video, last=last)
    videos = read_set("labelled_folder", tmp_path / "set", "val", classes=["thing"])
    (record,) = videos.videos
    assert [frame.index for frame in record.frames] == list(range(39))
    assert len(list(iterate(record))) == 39


def test_truncated_labelled_video_is_named(tmp_path):
    video = encode(tmp_path / "clip.mkv", range(90), codec="mpeg4", options={"g": "1", "qmax": "2"})
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    labelled(tmp_path / "set" / "val", video, last=6)
    problems = []
    with pytest.raises(Exception, match="ends early") as error:
        read_set("labelled_folder", tmp_path / "set", "val", classes=["thing"])
    assert "clip.mkv" in str(error.value), problems


def test_excerpt_of_a_cut_file_has_the_length_that_is_shown(tmp_path):
    with Excerpt(open_source(cut_copy(tmp_path / "clip.mp4")), stride=3) as source:
        assert source.info.length == 13
        indices = [frame.index for frame in source]
    assert all(b - a == 3 for a, b in pairwise(indices))
    assert np.array_equal(indices[:2], [0, 3])
