"""The HTML report."""

from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from evaluated_videos import (
    BOX,
    FAR,
    Detection,
    Target,
    evaluated,
    random_video,
    shifted,
    video,
)

from rnndet.errors import OutputError
from rnndet.evaluation.metrics import CocoAP
from rnndet.evaluation.metrics.base import compute
from rnndet.evaluation.records import EvaluatedVideo, Predictions
from rnndet.evaluation.report.charts import Bar, Curve, bars, curves
from rnndet.evaluation.report.matched_run import MatchedRun
from rnndet.evaluation.report.page import worst_frames, write_html
from rnndet.evaluation.score import RowKey

CLASSES = ("car <b>", "dog & cat")
VOID = {"meta", "wbr"}


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of the style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


def run_of(*videos: EvaluatedVideo) -> Predictions:
    run = Predictions(CLASSES)
    for one in videos:
        run.add(one)
    return run


def wandering() -> Predictions:
    return run_of(replace(random_video(1), name="a<i>"), replace(random_video(2), name="b"))


def perfect() -> Predictions:
    frames = [
        evaluated(i, [Detection(BOX), Detection(FAR, 0.8)], [Target(BOX), Target(FAR, 2)])
        for i in (0, 1)
    ]
    return run_of(video(*frames))


def page(path, runs, *, rows=None, **options) -> tuple[str, Page]:
    """The text of a page and its parts, which are checked to be closed in order."""
    options = {"title": "A & B", "protocol": {"seed": 0}, "classes": CLASSES} | options
    write_html(path / "page.html", rows=rows or {}, runs=runs, **options)
    text = (path / "page.html").read_text("utf-8")
    parsed = Page(text)
    assert parsed.open == []
    return text, parsed


def test_a_page_needs_no_other_file(tmp_path):
    run = wandering()
    rows = {RowKey("carried"): compute(CocoAP(CLASSES), run)}
    text, parsed = page(tmp_path, {"carried": run}, rows=rows)
    assert "http" not in text
    tags = {tag for tag, _ in parsed.tags}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "img"})
    assert not any("href" in attributes or "src" in attributes for _, attributes in parsed.tags)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_every_class_and_run_is_named_and_none_is_markup(tmp_path):
    runs = {"carried <u>": wandering(), "reset": wandering()}
    rows = {RowKey(name): compute(CocoAP(CLASSES), run) for name, run in runs.items()}
    facts = {"rules": {"<s>": "a rule"}, "data": ["x<i>", "y"]}
    _, parsed = page(tmp_path, runs, rows=rows, protocol=facts, title="<title>")
    for name in (*CLASSES, *runs, "a<i>", "<s>", "x<i>, y", "<title>"):
        assert name in parsed.text
    assert not {"b", "u", "i", "s"} & {tag for tag, _ in parsed.tags}


def test_a_run_without_a_name_is_the_model(tmp_path):
    _, parsed = page(tmp_path, {"": wandering()}, rows={RowKey(""): {"AP50/dog & cat": 0.5}})
    assert "the model" in parsed.text


def test_bars_are_those_of_all_frames(tmp_path):
    rows = {RowKey("a, b", s): {"AP50/dog & cat": v} for s, v in (("all frames", 0.5), ("x", 0.25))}
    _, parsed = page(tmp_path, {}, rows=rows)
    bars_text = parsed.text.rpartition("AP50 by class")[2]
    assert "a, b" in bars_text and "50.0" in bars_text and "25.0" not in bars_text


def test_numbers_are_in_per_cent_with_one_decimal_and_nan_is_a_dash(tmp_path):
    rows = {RowKey("carried"): {"AP50": 0.51234, "AP": float("nan")}}
    intervals = {RowKey("carried"): {"AP50": (0.4, 0.625), "AP": (float("nan"), float("nan"))}}
    text, _ = page(tmp_path, {}, rows=rows, intervals=intervals)
    assert "<td>51.2<small>[40.0, 62.5]</small></td><td>-</td>" in text


def test_a_number_that_one_row_lacks_is_a_dash(tmp_path):
    text, _ = page(tmp_path, {}, rows={RowKey("a"): {"AP50": 0.5}, RowKey("b"): {"F1": 0.25}})
    assert "<td>50.0</td><td>-</td>" in text
    assert "<td>-</td><td>25.0</td>" in text


def test_delays_are_in_frames(tmp_path):
    text, _ = page(tmp_path, {}, rows={RowKey("carried"): {"AD": 5.25, "delay@0.1": 7.0}})
    assert "AD<small>frames</small>" in text
    assert "<td>5.25</td><td>7.00</td>" in text


@pytest.mark.parametrize("runs", [{}, {"carried": run_of()}, {"carried": run_of(video())}])
def test_runs_without_frames_make_a_page(tmp_path, runs):
    _, parsed = page(tmp_path, runs, rows={RowKey("carried"): {}})
    assert "Protocol" in parsed.text
    assert [worst_frames(run, 3) for run in runs.values()] == [[] for _ in runs]


def test_frames_without_detections_or_targets_make_a_page(tmp_path):
    frames = [evaluated(0), evaluated(1, targets=[Target(BOX)]), evaluated(2, labelled=False)]
    _, parsed = page(tmp_path, {"carried": run_of(video(*frames))})
    assert "car <b>, targets: 1" in parsed.text
    assert "Without targets: dog & cat." in parsed.text


def test_the_curve_of_a_perfect_run_reaches_the_corner():
    run = MatchedRun(perfect())
    assert run.curve()[-1] == run.curve(0)[-1] == (1.0, 1.0)
    assert run.curve(1) == []


def test_the_corner_is_drawn_where_the_axes_end():
    axes = Page(curves([Curve("run", [(0.0, 0.0), (1.0, 1.0)])], width=300, height=200))
    ends = next(attributes for tag, attributes in axes.tags if tag == "polyline")["points"]
    assert ends == "48.0,158.0 288.0,10.0"


def test_a_curve_has_the_ap50_of_its_class():
    run = wandering()
    numbers = compute(CocoAP(CLASSES), run)
    for label, name in enumerate(CLASSES):
        heights = [precision for _, precision in MatchedRun(run).curve(label)]
        assert sum(heights) / 101 == pytest.approx(numbers[f"AP50/{name}"], abs=1e-9)


def test_the_operating_point_is_that_of_the_metric():
    run = wandering()
    numbers = compute(CocoAP(CLASSES), run)
    assert MatchedRun(run).best == {key: numbers[key] for key in MatchedRun(run).best}


def test_a_detection_on_an_ignored_target_is_no_error():
    frame = evaluated(0, [Detection(BOX)], [Target(BOX, ignore=True)])
    found = evaluated(1, [Detection(FAR)], [Target(FAR)])
    assert worst_frames(run_of(video(frame, found)), 2) == []


def test_the_worst_frame_is_the_one_with_the_misses():
    frames = [evaluated(i, [Detection(BOX)], [Target(BOX)]) for i in range(30)]
    frames[7] = evaluated(7, [Detection(BOX)], [Target(BOX), Target(FAR, 2)])
    frames[20] = evaluated(20, [Detection(BOX)], [Target(FAR), Target(shifted(FAR, 90), 2)])
    assert worst_frames(run_of(video(*frames)), 5) == [("clip", 20), ("clip", 7)]


def test_weak_false_positives_are_no_errors():
    frames = [evaluated(i, [Detection(BOX), Detection(FAR, 0.1)], [Target(BOX)]) for i in range(3)]
    assert worst_frames(run_of(video(*frames)), 5) == []


def test_at_most_two_worst_frames_of_a_video_and_no_neighbours():
    missed = [evaluated(i, targets=[Target(BOX), Target(FAR, 2)]) for i in range(40)]
    other = evaluated(3, targets=[Target(BOX)])
    run = run_of(video(*missed, name="many"), video(other, name="one"))
    assert worst_frames(run, 9) == [("many", 0), ("many", 10), ("one", 3)]
    assert worst_frames(run, 1) == [("many", 0)]


def test_track_is_thick_if_detected_thin_if_missed_and_absent_without_target(tmp_path):
    targets, hit = [Target(BOX)], [Detection(BOX)]
    frames = [evaluated(i, hit, targets) for i in range(4)]
    frames += [evaluated(i, (), targets) for i in range(4, 6)]
    frames += [evaluated(i) for i in range(6, 8)]
    frames += [evaluated(i, hit, targets) for i in range(8, 10)]
    text, _ = page(tmp_path, {"carried": run_of(video(*frames))})
    parts = Page(text.partition("<h2>Tracks</h2>")[2].partition("</section>")[0]).tags
    thick = [(float(a["x"]), float(a["width"])) for tag, a in parts if tag == "rect"]
    thin = [(float(a["x1"]), float(a["x2"])) for _, a in parts if a.get("class") == "missed"]
    (first, length), (second, rest) = thick
    frame = length / 4
    assert thin == [pytest.approx((first + 4 * frame, first + 6 * frame), abs=0.11)]
    assert (second, rest) == pytest.approx((first + 8 * frame, 2 * frame), abs=0.11)


def test_a_page_contains_an_image_once_with_the_boxes_of_every_run(tmp_path):
    missed = evaluated(4, [Detection(shifted(FAR, 60), 0.9, 1)], [Target(BOX), Target(FAR, 2)])
    sure = evaluated(5, [Detection(BOX, 0.95), Detection(FAR, 0.95)], [Target(BOX), Target(FAR, 2)])
    run = run_of(video(sure, missed))
    image = np.zeros((400, 400, 3), np.uint8)
    text, parsed = page(tmp_path, {"one": run, "two": run}, images={("clip", 4): image})
    assert text.count("data:image/jpeg;base64,") == 1
    assert ("use", {"href": "#image0"}) in parsed.tags
    assert parsed.text.count("missed: car <b>") == 4  # two targets in two runs
    assert "clip, frame 4. two: 2 missed, 0 false" in parsed.text


def test_bars_of_one_group_do_not_overlap_and_undefined_ones_are_a_dash():
    drawn = Page(bars({"car": [Bar(0.5), Bar(float("nan")), Bar(1.0, (0.9, 1.0))]}))
    tops = [float(a["y"]) for tag, a in drawn.tags if tag == "rect"]
    assert len(tops) == 2
    assert all(below - above >= 10 for above, below in pairwise(tops))
    assert drawn.text.endswith("car50.0-100.0")


@pytest.mark.parametrize("rule", ["AP50", "AP50_ilsvrc"])
def test_motion_bars_are_drawn_where_there_are_such_numbers(tmp_path, rule):
    numbers = {f"{rule}_slow": 0.8, f"{rule}_medium": 0.5, f"{rule}_fast": 0.25}
    _, parsed = page(tmp_path, {}, rows={RowKey(""): numbers})
    assert f"{rule} by motion" in parsed.text
    assert parsed.text.count("by motion") == 1


def test_a_page_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OutputError, match=r"page\.html: is a folder"):
        page(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
