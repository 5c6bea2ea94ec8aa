"""The pages of an evaluation's videos, and the links of its report to them."""

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from browser import IS_THERE, Browser
from evaluated_videos import BOX, FAR, Detection, Target, evaluated, shifted, video
from pages import Parsed

from rnndet.data.frames import make_cache
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.evaluation.records import EvaluatedVideo, Predictions
from rnndet.evaluation.report.matched_run import MatchedRun
from rnndet.evaluation.report.page import worst_frames, write_html
from rnndet.evaluation.report.video_page import video_page, write_video_pages
from rnndet.inference.writers.view.page import (
    CORRUPTED,
    DETECTED,
    FALSE,
    MISSED,
    UNLABELLED,
)
from rnndet.video.image import write_image
from rnndet.video.sink import VideoSink

CLASSES = ("car <b>", "dog & cat")
NAME = "v <i> caf\udce9"


def mixed() -> EvaluatedVideo:
    """Car 1 found, missed and found; a false dog in frame 4; frame 6 unlabelled; 2 corrupted."""
    hit, target = Detection(BOX, 0.9), Target(BOX)
    return video(
        evaluated(0, [hit], [target]),
        evaluated(2, [], [target], corrupted=True),
        evaluated(4, [hit, Detection(FAR, 0.95, 1)], [target]),
        evaluated(6, [hit], labelled=False),
        evaluated(8, [Detection(shifted(BOX, 2), 0.92), Detection(FAR, 0.1)], [target]),
        name=NAME,
        fps=10.0,
    )


def run_of(*videos: EvaluatedVideo) -> Predictions:
    run = Predictions(CLASSES, about={"weights": "<u>weights.pt"})
    for one in videos:
        run.add(one)
    return run


def image(index: int) -> np.ndarray:
    return np.full((400, 400, 3), 40 + 10 * index, np.uint8)


def images_in(root: Path) -> VideoSet:
    """The images of `mixed`, in files whose names need quotes."""
    frames = []
    for index in (0, 2, 4, 6, 8):
        path = root / f"{index}#100%.png"
        write_image(path, image(index))
        frames.append(FrameRecord(index, None, path))
    return VideoSet(CLASSES, (VideoRecord(NAME, 400, 400, 10.0, tuple(frames)),))


def file_in(root: Path) -> VideoSet:
    """The same frames of a video file."""
    with VideoSink(root / "file.mp4", size_hw=(400, 400), fps=10) as sink:
        for index in range(9):
            sink.write(image(index))
    frames = tuple(FrameRecord(index, None) for index in (0, 2, 4, 6, 8))
    record = VideoRecord(NAME, 400, 400, 10.0, frames, root / "file.mp4")
    return VideoSet(CLASSES, (record,))


def boxes(page: Parsed) -> list[tuple[str, int, int, float]]:
    """Row, frame number, kind and score of each box."""
    columns, found = page.columns, []
    for row, (name, _) in enumerate(page.data["rows"]):
        for b in range(columns["row_start"][row], columns["row_start"][row + 1]):
            index = int(columns["index"][columns["box_frame"][b]])
            score = int(columns["box_score"][b]) / 10000
            found.append((name, index, int(columns["box_kind"][b]), score))
    return found


def test_rows_are_targets_found_and_missed_and_false_positives():
    run = run_of(mixed())
    page = Parsed(video_page(mixed(), MatchedRun(run), CLASSES).to_html(title="t"))
    assert boxes(page) == [
        ("#1", 0, DETECTED, 0.9), ("#1", 2, MISSED, 0.0), ("#1", 4, DETECTED, 0.9),
        ("#1", 8, DETECTED, 0.92), ("false positives", 4, FALSE, 0.95),
    ]  # fmt: skip
    assert page.data["rows"] == [["#1", 0], ["false positives", 1]]
    assert page.columns["flags"].tolist() == [0, CORRUPTED, 0, UNLABELLED, 0]
    assert page.columns["time"].tolist() == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert page.data["step"] == pytest.approx(0.2)


def test_missed_box_is_the_target_and_found_box_is_the_detection():
    run = run_of(mixed())
    page = Parsed(video_page(mixed(), MatchedRun(run), CLASSES).to_html(title="t"))
    edges = [(page.columns["x1"] / page.data["scale"])[i] for i in (1, 3)]
    assert edges == [BOX[0], BOX[0] + 2]


def test_targets_without_an_identity_are_a_row_for_each_class():
    targets = [Target(BOX, id=-1), Target(FAR, id=-1)]
    one = video(evaluated(0, [Detection(BOX)], targets))
    page = video_page(one, MatchedRun(run_of(one)), CLASSES)
    assert [row.name for row in page.rows] == ["no id"]


def test_page_shows_the_images_of_the_data_where_they_are(tmp_path):
    (tmp_path / "set").mkdir()
    data = images_in(tmp_path / "set")
    links = write_video_pages(tmp_path / "out", run_of(mixed()), data, [(NAME, 2)])
    page = Parsed((tmp_path / "out" / "videos" / f"{NAME}.html").read_text("utf-8"))
    media = page.data["media"]
    for index, url in zip((0, 2, 4, 6, 8), media["files"], strict=True):
        target = tmp_path / "out" / "videos" / unquote(media["base"] + url)
        assert target.resolve() == (tmp_path / "set" / f"{index}#100%.png").resolve()
    assert links == {(NAME, 2): "videos/v%20%3Ci%3E%20caf%E9.html#t=0.200"}


def test_page_shows_the_video_file_or_the_images_of_a_cache(tmp_path):
    (tmp_path / "set").mkdir()
    data, run = file_in(tmp_path / "set"), run_of(mixed())
    path = tmp_path / "out" / "videos" / f"{NAME}.html"
    write_video_pages(tmp_path / "out", run, data, [(NAME, 2)])
    shown = Parsed(path.read_text("utf-8")).data
    assert (shown["media"]["kind"], shown["media"]["files"]) == ("video", ["file.mp4"])
    assert "rate of the file varies" in shown["notes"][0]
    assert not shown["media"]["annotated"]
    make_cache(data.videos[0], tmp_path / "cache")
    write_video_pages(tmp_path / "out", run, data, [(NAME, 2)], cache=tmp_path / "cache")
    shown = Parsed(path.read_text("utf-8")).data
    assert (shown["media"]["kind"], len(shown["media"]["files"])) == ("images", 5)
    assert shown["notes"] == []


def test_frames_that_the_data_lacks_are_left_out(tmp_path):
    data = images_in(tmp_path)
    record = replace(data.videos[0], frames=data.videos[0].frames[1:])
    write_video_pages(tmp_path, run_of(mixed()), VideoSet(CLASSES, (record,)), [(NAME, 2)])
    page = Parsed((tmp_path / "videos" / f"{NAME}.html").read_text("utf-8"))
    assert page.columns["index"].tolist() == [2, 4, 6, 8]
    assert len(page.data["media"]["files"]) == 4


def test_run_without_a_true_positive_makes_a_page(tmp_path):
    one = video(evaluated(0, [Detection(FAR)], [Target(BOX)]), name=NAME, fps=None)
    data = images_in(tmp_path)
    write_video_pages(tmp_path, run_of(one), data, [(NAME, 0)])
    page = Parsed((tmp_path / "videos" / f"{NAME}.html").read_text("utf-8"))
    assert boxes(page) == [("#1", 0, MISSED, 0.0)]


def report(folder: Path) -> str:
    """The report of `mixed` with its worst frames and their links."""
    data, run = images_in(folder), run_of(mixed())
    worst = worst_frames(run, 5)
    images = {key: image(key[1]) for key in worst}
    links = write_video_pages(folder, run, data, worst)
    write_html(
        folder / "report.html", title="t", protocol={}, rows={}, runs={"a": run, "b": run},
        classes=CLASSES, images=images, links=links,
    )  # fmt: skip
    return (folder / "report.html").read_text("utf-8")


def test_report_links_every_worst_frame_to_its_moment(tmp_path):
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', report(tmp_path))
    assert [url for url, _ in links] == ["videos/v%20%3Ci%3E%20caf%E9.html#t=0.200"] * 2
    assert links[0][1].startswith("v &lt;i&gt; caf")
    assert (tmp_path / unquote(links[0][0].partition("#")[0], errors="surrogateescape")).exists()


def test_report_without_pages_has_no_links(tmp_path):
    run = run_of(mixed())
    write_html(
        tmp_path / "report.html", title="t", protocol={}, rows={}, runs={"a": run},
        classes=CLASSES, images={(NAME, 2): image(2)},
    )  # fmt: skip
    assert "<a " not in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.skipif(not IS_THERE, reason="needs chromium and chromedriver")
def test_link_of_the_report_opens_the_frame_with_its_errors(tmp_path):
    (tmp_path / "out").mkdir()
    report(tmp_path / "out")
    with Browser(tmp_path / "profile") as browser:
        browser.open_file(tmp_path / "out" / "report.html")
        browser.value("document.querySelector('a').click()")
        browser.wait("document.documentElement.dataset.state === 'ready'")
        assert "frame 2" in browser.value("document.getElementById('clock').textContent")
        browser.wait("document.getElementById('image').naturalWidth === 400")
        assert "2%23100%25.png" in browser.value("document.getElementById('image').src")
        browser.wait("document.getElementById('now').textContent === 'car <b>#1, missed'")
        assert browser.value("document.querySelectorAll('b, i, u').length") == 0
        assert browser.errors() == []
