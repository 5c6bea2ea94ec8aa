"""Times of frames where the timestamps of a file repeat, fall, jump, wrap or are absent."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from timed_videos import encode

from rnndet.video.sources.av_file import AvFile
from rnndet.video.sources.clock import AHEAD, WRAP, Clock
from rnndet.video.sources.excerpt import Excerpt
from rnndet.video.sources.open import VideoFile, open_source


def times_of(stamps: Sequence[float | None], *, fps: int = 10, **options) -> list[float]:
    """The times of frames whose timestamps are given in seconds."""
    clock = Clock(Fraction(fps), **options)
    ms = [None if stamp is None else 1000 * stamp for stamp in stamps]
    return [time for _, time in clock.times(enumerate(ms), lambda frame: frame)]


def test_equal_timestamps_are_bridged_and_the_next_one_counts_again():
    assert times_of([0, 0.1, 0.1, 0.2, 0.9]) == pytest.approx([0, 0.1, 0.15, 0.2, 0.9])


def test_fallen_timestamp_is_bridged_and_the_next_one_counts_again():
    assert times_of([0, 0.1, 0.02, 0.3, 0.9]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.9])


def test_single_timestamp_far_ahead_is_bridged():
    assert times_of([0, 0.1, 500, 0.3, 0.4]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    "bad",
    [
        (900, 500), (500, 900), (900, 900), (900, None), (None, 900), (900, -900),
        (-900, -500), (-500, -900), (-900, 900), (500, 500.1, 500.2), (-500, -499.9, -499.8),
        (2.9, 2.95),
    ],
)  # fmt: skip
def test_run_of_bad_timestamps_is_bridged_and_the_next_one_counts_again(bad):
    after = [1.7, 1.8, 9.0]
    times = times_of([0, 0.1, 1.2, 1.3, *bad, *after])
    assert times[-3:] == pytest.approx(after)
    assert times[:4] == pytest.approx([0, 0.1, 1.2, 1.3])
    assert times[4:-3] == pytest.approx([1.4, 1.5, 1.6][: len(bad)])


@pytest.mark.parametrize("bad", [(900, 901, 902), (-900, 900, 900)])
def test_run_of_bad_timestamps_is_spread_evenly_where_the_stated_rate_is_too_low(bad):
    times = times_of([0, 0.02, 0.04, *bad, 0.12, 0.14])
    assert times == pytest.approx([0.02 * k for k in range(8)])


def test_run_of_bad_timestamps_ends_at_one_that_the_next_confirms():
    times = times_of([0, 0.02, 0.04, -900, 900, 0.1])  # 0.1 is the last frame
    assert times == pytest.approx([0.02 * k for k in range(6)])


@pytest.mark.parametrize("stamps", [[0.1, 0.1 + 1.5e-6], [900, 900, 0.1 + 2.5e-6]])
def test_frames_are_not_bridged_into_less_than_the_last_digit_of_results(stamps):
    times = times_of([0, 0.1, *stamps, 0.9])
    assert min(b - a for a, b in pairwise(times)) >= 1e-6


def test_frames_that_were_read_ahead_change_nothing_after_a_pause():
    stamps = [0.1, 0.1, 0.1, 0.15, 0.3]
    after_pause = times_of([0, *(30 + stamp for stamp in stamps)])
    assert [time - 30 for time in after_pause[1:]] == pytest.approx(times_of([0, *stamps])[1:])


def test_run_of_bad_timestamps_before_a_pause_is_bridged():
    assert times_of([0, 0.1, 900, 901, 30, 30.1]) == pytest.approx([0, 0.1, 0.2, 0.3, 30, 30.1])


def test_run_of_bad_timestamps_across_a_wrap_is_bridged():
    stamps = [WRAP - 0.2, WRAP - 0.1, 5000, 4000, 0.2, 0.3]
    assert times_of(stamps, wrap=WRAP) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-6)


def test_pause_before_a_joined_recording_is_kept():
    stamps = [50, 50.1, 90, 90.1, 3, 3.1]
    assert times_of(stamps) == pytest.approx([0, 0.1, 40, 40.1, 40.2, 40.3])


def test_frames_are_read_ahead_only_where_timestamps_leap():
    read = []

    def frames():
        for k, stamp in enumerate([0.0, 100, 200, 9000, *range(9100, 9900, 100)]):
            read.append(k)
            yield k, stamp

    counts = [len(read) for _ in Clock(Fraction(10)).times(frames(), lambda frame: frame)]
    assert counts == [2, 3, 4, 4 + AHEAD, 9, 9, 9, 9, 10, 11, 12, 12]


@pytest.mark.parametrize("fall", [0.3, 0.6, 0.9])
def test_times_increase_also_where_timestamps_catch_up_exactly(fall):
    """Results have six digits: two frames must not get the same."""
    stamps = [*(k / 10 for k in range(20)), *(2 - fall + k / 10 for k in range(40))]
    times = times_of(stamps)
    assert min(b - a for a, b in pairwise(times)) >= 1e-6
    assert times[-1] == pytest.approx(stamps[-1])


def test_several_equal_timestamps_are_caught_up_with():
    stamps = [0.0, 0.1, 0.1, 0.1, 0.1, *(0.1 * k for k in range(2, 20))]
    times = times_of(stamps)
    assert all(b > a for a, b in pairwise(times))
    assert times[-1] == pytest.approx(stamps[-1])


def test_missing_timestamps_follow_the_rate_and_the_next_one_counts_again():
    times = times_of([5.0, None, None, 5.3, 7.0])
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 2.0])


def test_first_timestamp_that_is_missing_is_one_frame_before_the_second():
    assert times_of([None, 5.0, 5.2]) == pytest.approx([0, 0.1, 0.3])


def test_second_recording_in_a_file_keeps_its_own_distances():
    assert times_of([100, 100.1, 3, 3.1, 3.7]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.9])


def test_timestamps_before_zero_count():
    assert times_of([-3, -2.9, -2.5, 0.1]) == pytest.approx([0, 0.1, 0.5, 3.1])


def test_timestamps_that_are_no_numbers_are_bridged():
    times = times_of([0, 0.1, float("nan"), float("inf"), 0.4])
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_pause_in_a_recording_is_kept():
    assert times_of([0, 0.1, 3600, 3600.1]) == pytest.approx([0, 0.1, 3600, 3600.1])


def test_timestamps_that_wrap_go_on():
    stamps = [WRAP - 0.2, WRAP - 0.1, 0, 0.5]
    assert times_of(stamps, wrap=WRAP) == pytest.approx([0, 0.1, 0.2, 0.7], abs=1e-6)


def test_clock_says_which_frames_it_bridged_and_for_which_it_assumed_the_rate():
    def notes(stamps):
        clock = Clock(Fraction(10))
        for k, (stamp, following) in enumerate(pairwise([*stamps, None])):
            clock.time(k, stamp, following)
        return clock.notes

    assert notes([0, 100, 250, 900]) == ()
    (note,) = notes([0, 100, 100, 200])
    assert "1 frame" in note
    assert "frame 2" in note
    (note,) = notes([0, 100, 0, 0, 0, 0])
    assert "4 frames" in note
    assert "frame 2" in note
    assert "10 per second is assumed" in note
    (note,) = notes([90_000, 90_100, 0, 100])
    assert "jump back" in note
    assert "frame 2" in note


def test_last_frames_without_timestamps_need_no_note():
    """A decoder gives none for the frames that it still holds at the end of a file."""
    clock = Clock(Fraction(10))
    for k, stamp in enumerate([0.0, 100.0, None, None]):
        clock.time(k, stamp, None)
    assert clock.notes == ()


@pytest.fixture
def recording(tmp_path):
    """Pauses, as of a recorder that is started by motion, and frame 4 has the time of frame 3."""
    ticks = [0, 1, 2, 30, 30, 31, 32, 300, 301, 302, 600]
    return encode(tmp_path / "clip.mkv", ticks, codec="mpeg4"), ticks


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
def test_file_with_one_repeated_timestamp_keeps_the_times_of_the_others(recording, kind):
    path, ticks = recording
    with kind(path) as source:
        times = [frame.time for frame in source]
        counts, notes = source.counts, source.notes
    del times[4], ticks[4]
    assert times == pytest.approx([tick / 30 for tick in ticks], abs=1.1e-3)
    assert counts.is_complete
    assert len(notes) == 1
    assert "frame 4" in notes[0]


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
def test_file_with_a_run_of_bad_timestamps_keeps_the_times_of_the_others(tmp_path, kind):
    ticks = [0, 1, 2, 3, 30_000, 30_001, 6, 7, 300, 301]
    path = encode(tmp_path / "clip.mkv", ticks, codec="mpeg4", options={"bf": "0"})
    with kind(path) as source:
        times, notes = [frame.time for frame in source], source.notes
    right = [0, 1, 2, 3, 4, 5, 6, 7, 300, 301]
    assert times == pytest.approx([tick / 30 for tick in right], abs=1.1e-3)
    (note,) = notes
    assert "2 frames (first: frame 4)" in note


def test_excerpt_after_a_repeated_timestamp_has_frames(recording):
    path, _ = recording
    with Excerpt(open_source(path), start=9) as source:
        assert [frame.index for frame in source] == [7, 8, 9, 10]


def test_second_iteration_has_the_notes_of_one_pass(recording):
    with open_source(recording[0]) as source:
        first, second = ([*source, *source.notes][-1] for _ in range(2))
    assert first == second


def joined(path: Path, *, first: int, second: int) -> Path:
    """A transport stream of two recordings of 15 frames that begin at these ticks of 1 / 30 s."""
    parts = [
        encode(path.with_name(f"{start}.ts"), range(start, start + 15), form="mpegts")
        for start in (first, second)
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
@pytest.mark.parametrize(("first", "second"), [(3000, 90), (1_000_000, 90)])
def test_recording_joined_to_a_later_one_follows_it_at_once(tmp_path, kind, first, second):
    """FFmpeg takes the fall for a wrap and adds 26.5 hours."""
    path = joined(tmp_path / "both.ts", first=first, second=second)
    with kind(path) as source:
        times = [frame.time for frame in source]
        notes = source.notes
    assert times == pytest.approx([k / 30 for k in range(30)], abs=2e-3)
    assert "jump back" in notes[0]


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
@pytest.mark.parametrize("start", [-150, round(WRAP * 30) - 20, round(WRAP * 30) - 3000])
def test_times_of_a_stream_begin_at_its_first_frame(tmp_path, kind, start):
    """Before zero, across the wrap of the 33 bits, and near it."""
    path = encode(tmp_path / "clip.ts", range(start, start + 40), form="mpegts")
    with kind(path) as source:
        assert [frame.time for frame in source] == pytest.approx(
            [k / 30 for k in range(40)], abs=1e-3
        )
        assert source.notes == ()


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_stream_that_begins_with_b_frames_has_increasing_times(tmp_path, codec):
    options = {"bf": "2", "g": "12", "flags": "-cgop", "x264-params": "open-gop=1:scenecut=0"}
    if codec == "mpeg2video":
        del options["x264-params"]
    path = encode(
        tmp_path / "clip.ts", range(300, 348), codec=codec, form="mpegts", options=options
    )
    data = path.read_bytes()
    path.write_bytes(data[188 * (len(data) // 188 // 3) :])  # begins within a group of pictures
    with open_source(path) as source:
        frames = list(source)
        assert source.notes == ()
    assert len(frames) >= 12
    assert all(b.time > a.time for a, b in pairwise(frames))
    steps = [b.time - a.time for a, b in pairwise(frames)]
    assert sorted(steps)[len(steps) // 2] == pytest.approx(1 / 30, abs=1e-3)


@pytest.mark.parametrize(
    ("codec", "form"), [("libx264", "h264"), ("libx265", "hevc"), ("mpeg2video", "mpeg2video")]
)
def test_raw_stream_has_the_rate_that_it_states(tmp_path, codec, form):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = encode(tmp_path / "clip.raw", range(20), codec=codec, form=form, options=options)
    with open_source(path) as source:
        frames = list(source)
        assert source.info.fps == 30
        assert source.notes == ()
    assert [frame.time for frame in frames] == pytest.approx([k / 30 for k in range(20)])


@pytest.mark.parametrize("codec", ["libx265", "mjpeg", "large mjpeg"])
def test_raw_stream_without_a_rate_is_said_to_be_assumed(tmp_path, codec):
    if codec == "mjpeg":
        path = tmp_path / "clip.raw"
        path.write_bytes(b"".join(jpeg(20 * k) for k in range(6)))
    elif codec == "large mjpeg":  # FFmpeg takes the first image alone for its probe
        path = tmp_path / "clip.mjpeg"
        path.write_bytes(b"".join(jpeg(20 * k, noise=True) for k in range(6)))
    else:
        options = {"x265-params": "log-level=none:no-vui-timing-info=1"}
        path = encode(tmp_path / "clip.raw", range(6), codec=codec, form="hevc", options=options)
    with open_source(path) as source:
        times = [frame.time for frame in source]
        assert source.info.fps is None
        (note,) = source.notes
    assert "25 per second is assumed" in note
    assert times == pytest.approx([k / 25 for k in range(6)])


def test_raw_jpeg_has_no_rate_for_pyav_too(tmp_path):
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(b"".join(jpeg(20 * k, noise=True) for k in range(6)))
    with AvFile(path) as source:
        assert source.info.fps is None
        assert len(list(source)) == 6


def jpeg(grey: int, *, noise: bool = False) -> bytes:
    from rnndet.video.image import encode_jpeg

    image = np.full((48, 64, 3), grey, np.uint8)
    if noise:
        image = np.random.default_rng(grey).integers(0, 256, (96, 128, 3), np.uint8)
    return encode_jpeg(image)


def test_opencv_says_that_it_assumes_the_rate_of_a_raw_stream(tmp_path):
    path = encode(tmp_path / "clip.h264", range(6), codec="libx264", form="h264")
    with VideoFile(path) as source:
        assert [frame.time for frame in source] == pytest.approx([k / 25 for k in range(6)])
        assert source.info.fps is None
        (note,) = source.notes
    assert "25 per second is assumed" in note
