"""The page of --save html: its data are the results, no name is markup, and it needs no network."""

import base64
import hashlib
import re
from collections import Counter
from fractions import Fraction
from importlib.resources import files
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from pages import Parsed

from conftest import detections
from rnndet.inference.results import Tally
from rnndet.inference.writers import EXPORTS
from rnndet.inference.writers.base import ExportedVideo
from rnndet.inference.writers.view.page import (
    CUT,
    DETECTED,
    PREDICTED,
    PROPAGATED,
    RESTART,
    SCRIPTS,
    Media,
    Page,
    relative_url,
)  # fmt: skip
from rnndet.structures import (
    Counts,
    Detections,
    Frame,
    FrameResult,
    RegionCount,
    VideoInfo,
)
from rnndet.video.sink import VideoSink, describe_result
from rnndet.video.sources.open import open_source

HOSTILE = (
    "bird",
    "</script><script>document.title = 'gone'</script>",
    "<!-- <script>",
    "\"quotes' & {{script}} \u2028 caf\udce9",
)
SIZE_HW = (64, 96)
SUMMARY = {"codec": "h264", "interrupted": False, "frames": 0}


def save(
    folder: Path,
    results: list[FrameResult],
    *,
    classes=HOSTILE,
    source: str = "clip.mp4",
    fps: Fraction | None = Fraction(25),
    summary: dict | None = None,
    warnings=(),
    about: dict | None = None,
) -> Parsed:
    export = EXPORTS["html"](folder)
    info = VideoInfo("clip", source, *SIZE_HW[::-1], fps, len(results))
    export.begin(ExportedVideo(info, SIZE_HW, classes, about=about or {}))
    for result in results:
        export.write(result, None)
    export.sum_up(SUMMARY | (summary or {}), warnings)
    export.close()
    return Parsed((folder / "view.html").read_text("utf-8"))


def frame(index: int, time: float | None = None, **marks) -> Frame:
    time = index / 25 if time is None else time
    return Frame(np.zeros((*SIZE_HW, 3), np.uint8), index, time, **marks)


def random_results(count: int = 30) -> list[FrameResult]:
    """Tracks whose class changes, boxes without a track, predicted boxes, empty frames."""
    draw = np.random.default_rng(0)
    results = []
    for index in range(count):
        number = int(draw.integers(0, 6)) if index % 7 else 0
        corner = draw.uniform(-5, 60, (number, 2))
        boxes = np.concatenate([corner, corner + draw.uniform(1, 40, (number, 2))], axis=1)
        ids = draw.permutation(12)[:number] * draw.integers(0, 2, number)
        scores = np.sort(draw.uniform(0.1, 1, number))[::-1]
        found = detections(boxes, scores, draw.integers(0, 4, number), ids)
        smoothed = Detections(found.boxes, found.scores, draw.integers(0, 4, number), found.ids)
        predicted = detections([[1, 2, 30.5, 40]], [0.5], [1], [20 + index]) if index % 5 else None
        results.append(FrameResult(frame(index), found, smoothed=smoothed, predicted=predicted))
    return results


def objects_of(page: Parsed) -> list[list[dict]]:
    """The boxes of each frame, in the keys of detections.jsonl, sorted."""
    data, columns = page.data, page.columns
    frames: list[list[dict]] = [[] for _ in columns["time"]]
    for row, (name, _) in enumerate(data["rows"]):
        for b in range(columns["row_start"][row], columns["row_start"][row + 1]):
            label, shown = (
                data["classes"][columns[key][b]] for key in ("box_label", "box_track_label")
            )
            entry = {
                "box": [
                    float(columns[edge][b]) / data["scale"] for edge in ("x1", "y1", "x2", "y2")
                ],
                "label": label,
                "score": round(int(columns["box_score"][b]) / 10000, 4),
            }
            entry |= {"id": int(name[1:])} if name.startswith("#") else {}
            entry |= {"track_label": shown} if shown != label else {}
            entry |= {"predicted": True} if columns["box_kind"][b] == PREDICTED else {}
            frames[columns["box_frame"][b]].append(entry)
    return [sorted(entries, key=sort_key) for entries in frames]


def sort_key(entry: dict) -> tuple:
    return (entry.get("predicted", False), -entry["score"])


def test_embedded_boxes_are_those_of_detections_jsonl(tmp_path):
    classes = (*HOSTILE[:3], "plain")
    results = random_results()
    embedded = objects_of(save(tmp_path, results, classes=classes))
    expected = [sorted(describe_result(r, classes), key=sort_key) for r in results]
    assert [len(entries) for entries in embedded] == [len(entries) for entries in expected]
    for mine, theirs in zip(chain(*embedded), chain(*expected), strict=True):
        assert mine.pop("box") == pytest.approx(theirs.pop("box"), abs=0.125 + 0.005)
        assert mine == theirs


def test_rows_of_tracks_have_the_classes_that_the_summary_counts(tmp_path):
    classes = ("a", "b", "c", "d")
    results, tally = random_results(), Tally(classes)
    for result in results:
        tally.add(result)
    data = save(tmp_path, results, classes=classes).data
    predicted = {f"#{20 + index}" for index in range(30)}  # ids that no detection has
    rows = [label for name, label in data["rows"] if name[0] == "#" and name not in predicted]
    assert Counter(classes[label] for label in rows) == tally.tracks()


def test_every_frame_has_its_time_number_and_marks(tmp_path):
    none = Detections.empty()
    results = [
        FrameResult(frame(0, 0.0), none),
        FrameResult(frame(1, 0.04), none, cut=True),
        FrameResult(frame(7, 0.31, gap=5), none, propagated=True),
        FrameResult(frame(8, 2.5, restart=True), none),
    ]
    columns = save(tmp_path, results).columns
    assert columns["index"].tolist() == [0, 1, 7, 8]
    assert columns["time"].tolist() == [0.0, 0.04, 0.31, 2.5]
    assert columns["gap"].tolist() == [0, 0, 5, 0]
    assert columns["flags"].tolist() == [0, CUT, PROPAGATED, RESTART]


def test_counts_of_regions_are_embedded_where_they_change(tmp_path):
    inside = [{}, {"car": 1}, {"car": 1}, {"car": 2, "bus": 1}, {}]
    results = [
        FrameResult(frame(i), Detections.empty(),
                    counts=Counts({"yard": RegionCount(now, {}, {"car": 7}, {})}, {}))
        for i, now in enumerate(inside)
    ]  # fmt: skip
    page = save(tmp_path, results)
    assert page.data["counters"] == [["yard", "inside"], ["yard", "entered"], ["yard", "left"]]
    columns = page.columns
    changes = [
        (int(f), int(p), page.data["texts"][t])
        for f, p, t in zip(
            *(columns[f"count_{n}"] for n in ("frame", "place", "text")), strict=True
        )
    ]
    assert changes == [
        (0, 0, "0"), (0, 1, "7 car"), (0, 2, "0"), (1, 0, "1 car"), (3, 0, "2 car, 1 bus"),
        (4, 0, "0"),
    ]  # fmt: skip


@pytest.mark.parametrize("times", [
    [12.0, 12.04, 12.08, 12.12],  # begins later, as with --start
    [0.0, 0.04, 0.5, 0.51],  # a variable rate
    [0.0, 0.2, 0.2, 0.1],  # times that do not increase
])  # fmt: skip
def test_frames_are_sought_where_the_annotated_video_has_them(tmp_path, times):
    pytest.importorskip("av")
    results = [FrameResult(frame(i, t), Detections.empty()) for i, t in enumerate(times)]
    page = save(tmp_path, results)
    with VideoSink(tmp_path / "annotated.mp4", size_hw=SIZE_HW, fps=25) as sink:
        for result in results:
            sink.write(result.frame.image, time=result.frame.time)
    with open_source(tmp_path / "annotated.mp4") as source:
        written = [one.time for one in source]
    assert page.columns["shown"] == pytest.approx(written, abs=1e-3)
    assert page.columns["time"] == pytest.approx(times)


def test_frames_of_mpeg_4_are_sought_at_the_constant_rate_that_it_has(tmp_path):
    results = [FrameResult(frame(i, i**2 / 10), Detections.empty()) for i in range(4)]
    page = save(tmp_path, results, fps=Fraction(10), summary={"codec": "mp4v"})
    assert page.columns["shown"] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert "PyAV" in page.data["media"]["hint"]


def test_no_name_is_markup_or_ends_the_data(tmp_path):
    page = save(
        tmp_path,
        random_results(),
        source="clips/<img src=x onerror=alert(1)> \udcff.mp4",
        about={"model": {"name": HOSTILE[1]}, "tracker": HOSTILE[2]},
        warnings=[HOSTILE[1]],
    )
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert not {"img src=x"} & {tag for tag, _ in page.tags}
    assert page.text("title") == "<img src=x onerror=alert(1)> \\udcff.mp4"
    assert page.data["classes"] == [*HOSTILE[:3], HOSTILE[3].replace("\udce9", "\\udce9")]
    facts = dict(page.data["facts"])
    assert (facts["model"], facts["tracker"]) == HOSTILE[1:3]
    assert page.data["notes"] == [f"Warning: {HOSTILE[1]}."]
    raw = (tmp_path / "view.html").read_text("utf-8")
    assert raw.count(">alert(1)") == 0 and "onerror=alert(1)>" not in raw


def test_page_is_one_file_that_refers_to_its_video_only(tmp_path):
    page = save(tmp_path, random_results())
    raw = (tmp_path / "view.html").read_text("utf-8")
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|WebSocket|XMLHttp", raw)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base"}
    assert not any({"src", "href", "style"} & set(attributes) for _, attributes in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    media = page.data["media"]
    assert (media["kind"], media["base"], media["files"]) == ("video", "", ["annotated.mp4"])
    assert [path.name for path in tmp_path.iterdir()] == ["view.html"]


def test_policy_allows_the_script_of_the_page_and_nothing_else(tmp_path):
    page = save(tmp_path, random_results())
    (policy,) = (a["content"] for _, a in page.tags if a.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = re.findall(r"<script>(.*)</script>", (tmp_path / "view.html").read_text(), re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["media-src"] == rules["img-src"] == "'self' file:"


def test_page_says_what_is_missing_without_an_annotated_video(tmp_path):
    data = save(tmp_path, random_results(), summary={"codec": None}).data
    assert data["media"] is None
    (note,) = data["notes"]
    assert "no annotated.mp4" in note and "--save html,video" in note


def test_page_says_that_the_run_was_interrupted_and_what_was_lost(tmp_path):
    lost = ("3 frames could not be decoded",)
    page = save(
        tmp_path, random_results(), summary={"interrupted": True, "frames": 30}, warnings=lost
    )
    assert page.data["notes"] == [
        "The run was interrupted after 30 frames.", "Warning: 3 frames could not be decoded.",
    ]  # fmt: skip


def test_page_without_boxes_has_all_frames_and_no_rows(tmp_path):
    page = save(tmp_path, [FrameResult(frame(i), Detections.empty()) for i in range(3)])
    assert page.data["rows"] == []
    assert (len(page.columns["time"]), len(page.columns["box_score"])) == (3, 0)
    assert page.columns["row_start"].tolist() == [0]


def test_boxes_without_a_tracker_are_a_row_for_each_class(tmp_path):
    found = detections([[0, 0, 8, 8]] * 3, [0.9, 0.8, 0.7], [0, 1, 0])
    data = save(tmp_path, [FrameResult(frame(i), found) for i in range(2)]).data
    assert data["rows"] == [["no track", 0], ["no track", 1]]


def test_sides_of_the_video_are_even_where_the_frame_is_odd(tmp_path):
    export = EXPORTS["html"](tmp_path)
    export.begin(ExportedVideo(VideoInfo("c", "c", 95, 63, None, None, 90), (63, 95), ("a",)))
    export.write(
        FrameResult(Frame(np.zeros((63, 95, 3), np.uint8), 0, 0.0), Detections.empty()), None
    )
    export.sum_up(SUMMARY, ())
    export.close()
    data = Parsed((tmp_path / "view.html").read_text("utf-8")).data
    assert (data["size"], data["media"]["size"]) == ([95, 63], [96, 64])
    assert "turned upright by 90°" in dict(data["facts"])["size"]


def test_boxes_of_huge_images_fit_the_column(tmp_path):
    page = Page(("a",), size_hw=(40_000, 70_000), step=1.0)
    page.add_frame(index=0, time=0.0, shown=0.0)
    page.add_box(page.row(1, "#1", label=0), (0, 0, 70_000, 1e9), score=1.0, label=0)
    columns = {name: values for name, values, _ in page.columns()}
    assert columns["x2"][0] / page.scale == pytest.approx(70_000, rel=1e-3)
    assert columns["y2"].tolist() == [32_000]
    assert columns["box_kind"].tolist() == [DETECTED]


def test_data_take_few_bytes(tmp_path):
    """60 frames of 20 slow objects: 26 bytes a box as columns, 90 as JSON."""
    page = Page(("a", "b"), size_hw=(720, 1280), step=0.04)
    draw = np.random.default_rng(0)
    for i in range(60):
        page.add_frame(index=i, time=i / 25, shown=i / 25)
        for k in range(20):
            x, y = 40 * k + 1.5 * i + draw.normal(), 30 * k + draw.normal()
            box, score = (x, y, x + 30, y + 60), draw.uniform(0.5, 0.9)
            page.add_box(page.row(k, f"#{k}", label=k % 2), box, score=score, label=k % 2)
    text = Parsed(page.to_html(title="t")).text("columns")
    assert len(text) < 16 * 60 * 20


def test_images_share_their_folder():
    media = Media("images", ("../set/v0/1.jpg", "../set/v0/2.jpg"), (8, 8)).to_dict()
    assert (media["base"], media["files"]) == ("../set/v0/", ["1.jpg", "2.jpg"])


def test_urls_of_any_file_name_are_relative_and_quoted(tmp_path):
    names = ["a b#?%.jpg", "<i>\"'.jpg", "caf\udce9.jpg"]
    urls = [relative_url(tmp_path / "set" / name, tmp_path / "out") for name in names]
    assert urls == ["../set/a%20b%23%3F%25.jpg", "../set/%3Ci%3E%22%27.jpg", "../set/caf%E9.jpg"]


def test_parts_of_the_page_are_files_of_the_package():
    folder = files("rnndet.inference.writers.view")
    template = folder.joinpath("page.html").read_text("utf-8")
    assert set(re.findall(r"\{\{(\w+)\}\}", template)) == {
        "title", "policy", "style", "script", "data", "columns",
    }  # fmt: skip
    assert sorted(SCRIPTS) == sorted(e.name for e in folder.iterdir() if e.name.endswith(".js"))
    for name in (*SCRIPTS, "style.css"):
        assert "</s" not in folder.joinpath(name).read_text("utf-8")  # would end its element
