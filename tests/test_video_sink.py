"""Results on disk are complete, and drawing works for every image size."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import detections
from rnndet.errors import OutputError
from rnndet.structures import Detections, Frame, FrameResult
from rnndet.video import sink as sink_module
from rnndet.video.draw import _free_place, colour_of, draw
from rnndet.video.image import write_image
from rnndet.video.sink import JsonLinesSink, VideoSink
from rnndet.video.sources.open import open_source

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("bird", "drone")


def result(index: int = 0, *, ids: bool = True, none: bool = False) -> FrameResult:
    frame = Frame(np.zeros((8, 8, 3), np.uint8), index, index / 25)
    if none:
        return FrameResult(frame, Detections.empty())
    found = detections(
        [[1.234567, 2, 3, 4.999], [0, 0, 1, 1]],
        [0.93335, 0.5],
        [0, 1],
        [3, 7] if ids else None,
    )
    return FrameResult(frame, found)


def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def __init__(self, *_: object, **__: object) -> None:
            raise ImportError("no PyAV")

    monkeypatch.setattr(sink_module, "H264Writer", Missing)


def test_json_lines_hold_header_frames_and_summary(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    with JsonLinesSink(path) as sink:
        sink.write_header({"fps": Fraction(25), "classes": CLASSES})
        sink.write(result(0), CLASSES)
        sink.write(result(1, none=True), CLASSES)
        sink.write_summary({"frames": 2})
    header, first, second, summary = map(json.loads, path.read_text().splitlines())
    assert header == {"type": "header", "fps": "25", "classes": ["bird", "drone"]}
    assert first == {
        "type": "frame",
        "index": 0,
        "time": 0.0,
        "objects": [
            {"box": [1.23, 2.0, 3.0, 5.0], "label": "bird", "score": 0.9334, "id": 3},
            {"box": [0.0, 0.0, 1.0, 1.0], "label": "drone", "score": 0.5, "id": 7},
        ],
    }
    assert second["objects"] == []
    assert second["time"] == 0.04
    assert summary == {"type": "summary", "frames": 2}


def test_json_lines_leave_ids_out_before_tracking(tmp_path):
    with JsonLinesSink(tmp_path / "out.jsonl") as sink:
        sink.write(result(ids=False), CLASSES)
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert "id" not in json.loads(line)["objects"][0]


def test_json_lines_are_on_disk_before_close(tmp_path):
    sink = JsonLinesSink(tmp_path / "out.jsonl")
    for index in range(3):
        sink.write(result(index), CLASSES)
        text = (tmp_path / "out.jsonl").read_text()
        assert text.endswith("\n")
        assert [json.loads(line)["index"] for line in text.splitlines()] == list(range(index + 1))
    sink.close()


def test_json_lines_survive_an_error(tmp_path):
    with pytest.raises(KeyError), JsonLinesSink(tmp_path / "out.jsonl") as sink:
        sink.write(result(), CLASSES)
        raise KeyError
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_json_lines_where_a_file_is_in_the_way_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        JsonLinesSink(tmp_path / "file" / "out.jsonl")


@pytest.mark.parametrize("with_pyav", [True, False])
@pytest.mark.parametrize("size_hw", [(48, 64), (121, 161), (1, 1)])
def test_video_holds_every_frame(tmp_path, monkeypatch, with_pyav, size_hw):
    if with_pyav:
        pytest.importorskip("av")
    else:
        without_pyav(monkeypatch)
    path = tmp_path / "out" / "annotated.mp4"
    with VideoSink(path, size_hw=size_hw, fps=Fraction(30000, 1001)) as sink:
        assert sink.codec == ("h264" if with_pyav else "mp4v")
        assert (sink.note is None) == with_pyav
        for k in range(7):
            sink.write(np.full((*size_hw, 3), 30 * k, np.uint8))
    assert [p.name for p in path.parent.iterdir()] == ["annotated.mp4"]
    with open_source(path) as source:
        frames = list(source)
        assert source.info.fps == Fraction(30000, 1001)
        assert (source.info.height - size_hw[0], source.info.width - size_hw[1]) == (
            size_hw[0] % 2,
            size_hw[1] % 2,
        )
    assert len(frames) == 7
    assert abs(frames[6].image.mean() - 180) < 6


def test_h264_is_yuv420p_with_its_index_in_front(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with VideoSink(path, size_hw=(64, 64), fps=25) as sink:
        for _ in range(5):
            sink.write(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("with_pyav", [True, False])
def test_error_or_abort_leaves_no_video(tmp_path, monkeypatch, with_pyav):
    if not with_pyav:
        without_pyav(monkeypatch)
    with pytest.raises(KeyError), VideoSink(tmp_path / "a.mp4", size_hw=(32, 32), fps=25) as sink:
        sink.write(np.zeros((32, 32, 3), np.uint8))
        raise KeyError
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_video_without_frames_leaves_no_file(tmp_path):
    with VideoSink(tmp_path / "a.mp4", size_hw=(32, 32), fps=None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lost_frames_are_noticed_on_close(tmp_path, monkeypatch):
    without_pyav(monkeypatch)
    monkeypatch.setattr(sink_module.Mpeg4Writer, "write", lambda *_, **__: None)
    sink = VideoSink(tmp_path / "a.mp4", size_hw=(32, 32), fps=25)
    sink.write(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(OutputError, match="0 of 1 frames"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_video_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "file" / "a.mp4", tmp_path / "folder.mp4", tmp_path / "a.avi"):
        with pytest.raises(OutputError) as error:
            VideoSink(path, size_hw=(32, 32), fps=25)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(32, 30, 3), (32, 32), (32, 32, 1), (32, 32, 4)])
def test_frame_of_another_size_or_kind_is_an_error(tmp_path, shape):
    with (
        pytest.raises(ValueError, match="expected"),
        VideoSink(tmp_path / "a.mp4", size_hw=(32, 32), fps=25) as sink,
    ):
        sink.write(np.zeros(shape, np.uint8))


def write_at(path, times, fps) -> None:
    with VideoSink(path, size_hw=(32, 32), fps=fps) as sink:
        for k, time in enumerate(times):
            sink.write(np.full((32, 32, 3), 20 * k % 256, np.uint8), time=time)


def span(path) -> float:
    """Seconds that a video is played."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base)


def test_frames_are_shown_at_their_times_and_the_last_one_as_long_as_usual(tmp_path):
    pytest.importorskip("av")
    times = [7.0, 7.02, 7.1, 7.5, 7.52, 9.0, 9.04]  # no even rhythm, and not from 0
    write_at(tmp_path / "a.mp4", times, 25)
    with open_source(tmp_path / "a.mp4") as source:
        found = [frame.time for frame in source]
    assert found == pytest.approx([time - 7 for time in times], abs=1e-3)
    assert span(tmp_path / "a.mp4") == pytest.approx(2.08, abs=1e-3)


def test_constant_rate_stays_exact_where_times_are_rounded_to_milliseconds(tmp_path):
    pytest.importorskip("av")
    rate = Fraction(30000, 1001)
    write_at(tmp_path / "a.mp4", [round(float(k / rate), 3) for k in range(90)], rate)
    with open_source(tmp_path / "a.mp4") as source:
        assert source.info.fps == rate
        assert len(list(source)) == 90
    assert span(tmp_path / "a.mp4") == pytest.approx(90 * 1001 / 30000, abs=1e-6)


@pytest.mark.parametrize("times", [[None] * 4, [1.0] * 4, [3.0, 2.0, 1.0, 0.0], [float("nan")] * 4])
def test_frames_without_a_usable_time_follow_in_the_frame_rate(tmp_path, times):
    pytest.importorskip("av")
    write_at(tmp_path / "a.mp4", times, 10)
    with open_source(tmp_path / "a.mp4") as source:
        assert [frame.time for frame in source] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)


def test_json_lines_end_with_a_complete_line_on_a_full_disk(tmp_path):
    check = (
        "import resource, signal, sys\n"
        "from rnndet.errors import OutputError\n"
        "from rnndet.video.sink import JsonLinesSink\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "sink = JsonLinesSink(sys.argv[1])\n"
        "try:\n"
        "    for k in range(100):\n"
        "        sink.write_header({'k': k, 'text': 'x' * 70})\n"
        "except OutputError:\n"
        "    sink.abort()\n"
        "    sys.exit(4)\n"
    )
    order = [sys.executable, "-c", check, str(tmp_path / "a.jsonl")]
    assert subprocess.run(order, cwd=ROOT, check=False).returncode == 4
    text = (tmp_path / "a.jsonl").read_text()
    assert text.endswith("\n")
    lines = [json.loads(line)["k"] for line in text.splitlines()]
    assert lines == list(range(len(lines)))
    assert len(lines) > 5


def test_names_that_are_not_unicode_are_written_as_escapes(tmp_path):
    with JsonLinesSink(tmp_path / "a.jsonl") as sink:
        sink.write_header({"source": "bad\udcff.mp4"})
    assert json.loads((tmp_path / "a.jsonl").read_bytes())["source"] == "bad\udcff.mp4"


def test_image_with_unknown_suffix_or_folder_is_refused(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    for name in ("a.xyz", "missing/a.png"):
        with pytest.raises(OutputError):
            write_image(tmp_path / name, image)


@pytest.mark.parametrize("size_hw", [(120, 160), (384, 480), (2160, 3840), (40, 40)])
def test_drawing_marks_the_box_and_leaves_the_input_alone(size_hw):
    height, width = size_hw
    image = np.full((height, width, 3), 128, np.uint8)
    boxes = [[0.4, 0.4, 0.6, 0.6], [0, 0, 0.1, 0.1], [0.9, 0.9, 1, 1]]
    boxes = np.array(boxes) * [width, height, width, height]
    found = detections(boxes, [0.9, 0.8, 0.7], [0, 1, 1], [1, 2, 300])
    drawn = draw(image, found, CLASSES)
    assert (image == 128).all()
    assert drawn.shape == image.shape
    for k, key in enumerate((1, 2, 300)):
        x1, y1, x2, y2 = (round(v) for v in boxes[k].tolist())
        around = drawn[max(0, y1 - 12) : y2 + 12, max(0, x1 - 12) : x2 + 12]
        assert (around == colour_of(key)).all(-1).any()


def test_label_of_a_box_in_the_corner_is_inside_and_readable():
    image = np.full((120, 160, 3), 128, np.uint8)
    found = detections([[150.0, 0, 160, 8]], [0.9], [0])
    drawn = draw(image, found, ("helicopter",))
    changed = (drawn != image).any(-1)
    assert changed.sum() > 600  # a block of letters, not only the box
    assert changed[:, 0].sum() == 0  # the block begins inside the image: all letters are there


def test_labels_of_neighbours_do_not_cover_each_other():
    blocks = []
    for box in ([50, 50, 60, 60], [58, 50, 70, 60], [54, 52, 66, 62]):
        left, top = _free_place(box, (40, 10), (160, 120), blocks)
        block = (left, top, left + 40, top + 10)
        assert 0 <= left <= 120
        assert 0 <= top <= 110
        for other in blocks:
            apart = block[0] >= other[2] or other[0] >= block[2]
            assert apart or block[1] >= other[3] or other[1] >= block[3]
        blocks.append(block)


@pytest.mark.parametrize(
    "box", [[-50.0, -50, 500, 500], [300.0, 300, 310, 310], [0.0, 0, 160, 120]]
)
def test_boxes_beyond_the_image_are_drawn_at_its_edge(box):
    image = np.full((120, 160, 3), 128, np.uint8)
    found = detections([box], [0.9], [0])
    assert (draw(image, found, CLASSES) != image).any()


def test_no_detections_draw_nothing():
    image = np.full((20, 30, 3), 9, np.uint8)
    drawn = draw(image, Detections.empty(), CLASSES)
    assert np.array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_colour_follows_the_id_and_differs_between_neighbours():
    colours = [colour_of(k) for k in range(12)]
    assert len(set(colours)) == 12
    image = np.zeros((100, 100, 3), np.uint8)
    box, score = [[20.0, 40, 60, 80]], [0.5]
    for label in (0, 1):
        found = detections(box, score, [label], [5])
        assert tuple(draw(image, found, CLASSES)[80, 40]) == colour_of(5)


def test_opencv_can_reopen_the_fallback_video(tmp_path, monkeypatch):
    without_pyav(monkeypatch)
    with VideoSink(tmp_path / "a.mp4", size_hw=(32, 48), fps=12.5) as sink:
        for _ in range(3):
            sink.write(np.zeros((32, 48, 3), np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    capture.release()


@pytest.mark.parametrize("size_hw", [(33, 48), (32, 49), (33, 49), (32, 48)])
def test_only_odd_sides_are_padded_by_a_pixel(size_hw, tmp_path, monkeypatch):
    seen = []

    class Recorder:
        codec = "h264"

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def write(self, image: np.ndarray, *, time: float | None = None) -> None:
            seen.append(image)

        def close(self) -> None:
            pass

    monkeypatch.setattr(sink_module, "open_writer", Recorder)
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    sink = VideoSink(tmp_path / "clip.mp4", size_hw=size_hw, fps=25)
    sink.write(image)
    sink.abort()
    height, width = size_hw
    (written,) = seen
    assert written.shape == (height + height % 2, width + width % 2, 3)
    np.testing.assert_array_equal(written[:height, :width], image)
    np.testing.assert_array_equal(written[-1, -1], image[-1, -1])
