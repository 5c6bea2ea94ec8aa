"""Shape and colour of pixels: read from a video, written to the annotated video and the header."""

import json
import re
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_av_file import turn

from conftest import SIZE_HW, tiny_model
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.structures import VideoInfo
from rnndet.video import sink as sink_module
from rnndet.video.colour import ColourTags
from rnndet.video.sink import Mpeg4Writer, VideoSink
from rnndet.video.sources.av_file import AvFile
from rnndet.video.sources.excerpt import Excerpt
from rnndet.video.sources.isolated import IsolatedSource
from rnndet.video.sources.open import VideoFile, open_source

av = pytest.importorskip("av")
COLOURS = ((226, 66, 16), (30, 120, 220), (250, 250, 250), (4, 4, 4))  # of the quarters


def write(
    path: Path,
    *,
    aspect: Fraction | None = None,
    tags: ColourTags | None = None,
    codec: str = "libx264",
    form: str = "yuv420p",
    title: str = "",
) -> Path:
    """Frames of four colours, in the shape and the colours of the tags."""
    tags = tags or ColourTags()
    height, width = SIZE_HW
    image = np.zeros((height, width, 3), np.uint8)
    for k, colour in enumerate(COLOURS):
        top, left = k // 2 * height // 2, k % 2 * width // 2
        image[top : top + height // 2, left : left + width // 2] = colour
    with av.open(str(path), "w", format="mpegts" if path.suffix == ".ts" else None) as container:
        if title:
            container.metadata["title"] = title
        options = {"crf": "4"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, form
        context = stream.codec_context
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.colorspace, context.color_range = tags.matrix, tags.range
        for _ in range(40 if path.suffix == ".ts" else 3):  # FFmpeg knows a longer stream only
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            matrix = {} if tags.matrix in (0, 2) else {"dst_colorspace": tags.matrix}
            frame = frame.reformat(format=form, dst_color_range=tags.range or 1, **matrix)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shape_and_tags(path: Path) -> tuple[Fraction | None, ColourTags]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        return stream.sample_aspect_ratio, ColourTags(
            int(context.color_primaries), int(context.color_trc), int(context.colorspace),
            int(context.color_range),
        )  # fmt: skip


def colours_of(path: Path) -> np.ndarray:
    """The four colours that a video shows, (4, 3)."""
    return colours_in(next(iter(open_source(path))).image)


def colours_in(image: np.ndarray) -> np.ndarray:
    height, width = SIZE_HW
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return np.array([image[place] for place in places], int)


def infer(source, folder: Path, *, save: tuple[str, ...] = ("video",)) -> dict:
    """Run a model without detections; returns the header of its results."""
    stream = make_stream(tiny_model(), min_score=0.999)
    with source:
        summary = run_source(stream, source, folder, RunOptions(name="run", save=save))
    assert summary.frames > 0
    with (folder / "run" / "detections.jsonl").open() as file:
        return json.loads(file.readline())


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_sample_aspect_ratio_is_read(tmp_path, kind, suffix):
    with kind(write(tmp_path / f"clip{suffix}", aspect=Fraction(16, 11))) as source:
        assert source.info.sample_aspect == Fraction(16, 11)
    with kind(write(tmp_path / f"square{suffix}", aspect=Fraction(1))) as source:
        assert source.info.sample_aspect is None
    with kind(write(tmp_path / f"unknown{suffix}")) as source:
        assert source.info.sample_aspect is None


def test_change_of_the_pixels_shape_in_a_stream_is_said_with_the_frame(tmp_path):
    parts = [write(tmp_path / f"{n}.ts", aspect=Fraction(n, 3)) for n in (3, 4)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(joined) as source:
        assert len(list(source)) == 80
        (note,) = [note for note in source.notes if "shape" in note]
    assert re.search(r"from 1:1 to 4:3 at frame (3\d|40); the first is kept", note)


def test_shape_that_the_container_states_is_no_change(tmp_path):
    """Of Matroska and mp4, whose own statement holds, and the codec may have another."""
    path = write(tmp_path / "clip.ts", aspect=Fraction(4, 3))
    with AvFile(path) as source:
        list(source)
        assert source.notes == ()
    with av.open(str(path)) as old, av.open(str(tmp_path / "clip.mkv"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.sample_aspect_ratio = Fraction(3, 2)
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    with AvFile(tmp_path / "clip.mkv") as source:
        list(source)
        assert source.notes == ()


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
@pytest.mark.parametrize(
    ("degrees", "expected"), [(90, (11, 16)), (180, (16, 11)), (270, (11, 16))]
)
def test_sample_aspect_ratio_is_that_of_the_upright_image(tmp_path, kind, degrees, expected):
    path = turn(write(tmp_path / "clip.mp4", aspect=Fraction(16, 11)), degrees)
    with kind(path) as source:
        assert source.info.sample_aspect == Fraction(*expected)


@pytest.mark.parametrize("aspect", [Fraction(16, 11), Fraction(8, 9)])
def test_annotated_video_and_header_have_the_sample_aspect_ratio(tmp_path, aspect):
    path = write(tmp_path / "clip.mkv", aspect=aspect)
    header = infer(open_source(path), tmp_path)
    assert header["sample_aspect_ratio"] == f"{aspect.numerator}:{aspect.denominator}"
    assert (header["width"], header["height"]) == SIZE_HW[::-1]
    assert shape_and_tags(tmp_path / "run" / "annotated.mp4")[0] == aspect


def test_header_of_square_pixels_has_no_sample_aspect_ratio(tmp_path):
    header = infer(open_source(write(tmp_path / "clip.mp4", aspect=Fraction(1))), tmp_path)
    assert "sample_aspect_ratio" not in header
    assert shape_and_tags(tmp_path / "run" / "annotated.mp4")[0] in (None, 1)


def test_shape_and_colour_pass_an_excerpt_and_a_child_process(tmp_path):
    tags = ColourTags(1, 1, 1, 1)
    path = write(tmp_path / "clip.mp4", aspect=Fraction(4, 3), tags=tags)
    with open_source(path) as plain, Excerpt(IsolatedSource(str(path)), stride=2) as source:
        assert source.info.sample_aspect == plain.info.sample_aspect == Fraction(4, 3)
        assert source.colour_tags() == plain.colour_tags() == tags


@pytest.mark.parametrize("kind", [VideoFile, AvFile])
@pytest.mark.parametrize(
    "tags",
    [
        ColourTags(1, 1, 1, 1),  # BT.709
        ColourTags(6, 6, 6, 1),  # BT.601, 525 lines
        ColourTags(1, 13, 1, 2),  # sRGB of full range
        ColourTags(2, 2, 2, 2),  # only the range is stated
        ColourTags(2, 2, 9, 1),
    ],
)
def test_annotated_video_has_the_tags_and_the_colours_of_the_source(tmp_path, kind, tags):
    path = write(tmp_path / "clip.mp4", tags=tags)
    infer(kind(path), tmp_path)
    out = tmp_path / "run" / "annotated.mp4"
    assert shape_and_tags(out)[1] == tags
    assert np.abs(colours_of(out) - colours_of(path)).max() <= 4
    assert np.abs(colours_of(path) - np.array(COLOURS)).max() <= 4


class Watched(VideoFile):
    """A video that keeps its first image: OpenCV takes 2 s to open one of wide colours."""

    first_image: np.ndarray

    def __iter__(self):
        for frame in super().__iter__():
            if frame.index == 0:
                self.first_image = frame.image.copy()
            yield frame


@pytest.mark.parametrize(
    "tags",
    [
        ColourTags(9, 1, 9, 1),  # only the gamut is wide
        ColourTags(1, 16, 1, 1),  # only the range of brightness is high
        ColourTags(9, 16, 9, 2),
    ],
)
def test_wide_colours_have_the_tags_of_what_the_decoder_makes_of_them(tmp_path, tags):
    """OpenCV 5 converts BT.2020 and PQ to BT.709; PyAV leaves the values as they are."""
    path = write(tmp_path / "clip.mp4", tags=tags)
    with AvFile(path) as source:
        assert source.colour_tags() == tags
    video = Watched(path)
    infer(video, tmp_path)
    out = tmp_path / "run" / "annotated.mp4"
    assert np.abs(colours_of(out) - colours_in(video.first_image)).max() <= 4
    if cv2.__version__ >= "5":
        assert shape_and_tags(out)[1] == ColourTags(1, 1, 1, tags.range)


def test_range_that_is_not_stated_is_the_limited_one(tmp_path):
    path = write(tmp_path / "clip.mp4", tags=ColourTags(2, 2, 1, 0))
    infer(open_source(path), tmp_path)
    out = tmp_path / "run" / "annotated.mp4"
    assert shape_and_tags(out)[1] == ColourTags(2, 2, 1, 1)
    assert np.abs(colours_of(out) - colours_of(path)).max() <= 4


def test_video_in_rgb_is_written_in_a_matrix_that_is_stated(tmp_path):
    path = write(
        tmp_path / "clip.mkv", tags=ColourTags(1, 13, 0, 2), codec="libx264rgb", form="rgb24"
    )
    infer(open_source(path), tmp_path)
    out = tmp_path / "run" / "annotated.mp4"
    assert shape_and_tags(out)[1] == ColourTags(1, 13, 1, 2)
    assert np.abs(colours_of(out) - np.array(COLOURS)).max() <= 5


def test_video_without_tags_is_written_as_before(tmp_path):
    path = write(tmp_path / "clip.mp4")
    infer(open_source(path), tmp_path)
    out = tmp_path / "run" / "annotated.mp4"
    assert shape_and_tags(out) == (None, ColourTags())
    assert np.abs(colours_of(out) - colours_of(path)).max() <= 4
    with open_source(path) as source:
        images = [frame.image for frame in source]
    for name, tags in (("a.mp4", None), ("b.mp4", ColourTags())):
        with VideoSink(tmp_path / name, size_hw=SIZE_HW, fps=25, colours=tags) as sink:
            for image in images:
                sink.write(image)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_title_that_is_not_unicode_does_not_hide_the_tags(tmp_path):
    tags = ColourTags(1, 1, 1, 1)
    path = write(tmp_path / "clip.mkv", tags=tags, title="titletitle")
    data = path.read_bytes()
    assert b"titletitle" in data
    path.write_bytes(data.replace(b"titletitle", b"\xff\xfe\xe9titleti"))
    for kind in (VideoFile, AvFile):
        with kind(path) as source:
            assert source.colour_tags() == tags


def test_reserved_codes_do_not_stop_the_video(tmp_path):
    tags = ColourTags(255, 200, 200, 77)
    with VideoSink(tmp_path / "a.mp4", size_hw=SIZE_HW, fps=25, colours=tags) as sink:
        sink.write(np.zeros((*SIZE_HW, 3), np.uint8))
    assert len(list(open_source(tmp_path / "a.mp4"))) == 1


def test_reserved_codes_are_not_written():
    assert ColourTags(255, 200, 200, 77).writable() == ColourTags(2, 2, 1, 0)
    assert ColourTags(3, 3, 3, 3).writable() == ColourTags(2, 2, 1, 0)
    assert ColourTags(22, 18, 9, 2).writable() == ColourTags(22, 18, 9, 2)


def test_tags_are_not_read_where_no_video_is_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("opened again")

    monkeypatch.setattr(VideoFile, "colour_tags", refuse)
    infer(open_source(write(tmp_path / "clip.mp4")), tmp_path, save=("mot",))


def test_video_without_pyav_says_that_its_pixels_are_square(tmp_path, monkeypatch):
    def open_mpeg4(path, size_hw, fps, **_):
        return Mpeg4Writer(path, size_hw, fps)

    monkeypatch.setattr(sink_module, "open_writer", open_mpeg4)
    sink = VideoSink(tmp_path / "a.mp4", size_hw=SIZE_HW, fps=25, sample_aspect=Fraction(16, 11))
    assert "16:11" in sink.note
    sink.abort()
    sink = VideoSink(tmp_path / "a.mp4", size_hw=SIZE_HW, fps=25)
    assert "square" not in sink.note
    sink.abort()


def test_info_of_square_pixels_is_the_default():
    assert VideoInfo("clip", "clip", 4, 4, None, None).sample_aspect is None
