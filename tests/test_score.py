"""Scores: rows, subsets, comparison."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.metrics import METRICS
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo, Predictions, with_targets
from rnndet.evaluation.score import (
    RowKey,
    build_metrics,
    check_same,
    compare,
    format_number,
    metric_names,
    protocol,
    report_of,
    score,
    with_tracks,
)
from rnndet.structures import Target, TrackingTarget
from rnndet.tracking import ByteTracker

BOX = np.array([[10, 10, 50, 50]], np.float32)
ALL, OTHER = RowKey(""), RowKey("", "other frames")


def frame(index: int, found: bool, corrupted: bool) -> EvaluatedFrame:
    n = int(found)
    return EvaluatedFrame(
        index, BOX[:n], np.full(n, 0.9, np.float32), np.zeros(n, np.int32), np.zeros(n, np.int64),
        BOX, np.zeros(1, np.int32), np.ones(1, np.int64), np.zeros(1, bool), corrupted=corrupted,
    )  # fmt: skip


def run(*found: str, corrupted: str = "") -> Predictions:
    """One video per text; 1 = found, 0 = missed; in `corrupted` 1 = corrupted, for every video."""
    predictions = Predictions(("a",))
    for number, text in enumerate(found):
        flags = corrupted or "0" * len(text)
        frames = [frame(i, text[i] == "1", flags[i] == "1") for i in range(len(text))]
        predictions.add(EvaluatedVideo(f"v{number}", 30.0, (64, 64), tuple(frames)))
    return predictions


def test_temporal_metrics_are_computed_on_complete_videos_only() -> None:
    metrics = build_metrics(["coco_ap", "stability"], ("a",))
    rows, _ = score({"": run("1101", corrupted="0010")}, metrics)
    assert "fragment" in rows[ALL] and "AP50_slow" in rows[ALL]
    assert "fragment" not in rows[OTHER] and "AP50_slow" not in rows[OTHER]
    assert rows[OTHER]["AP50"] == pytest.approx(1.0)


def test_rows_are_named_after_the_run() -> None:
    rows, intervals = score({"reset": run("11")}, build_metrics(["coco_ap"], ("a",)))
    assert list(rows) == [RowKey("reset", "all frames")]
    assert list(report_of({}, rows, intervals)["results"]) == ["reset, all frames"]


def test_intervals_are_given_for_headline_numbers() -> None:
    _, intervals = score(
        {"": run("11", "10", "00")}, build_metrics(["coco_ap"], ("a",)), samples=50
    )
    low, high = intervals[ALL]["AP50"]
    assert 0 <= low < high <= 1


def test_a_run_compared_with_itself_has_no_difference() -> None:
    metrics = build_metrics(["coco_ap", "vid_ap"], ("a",))
    numbers = compare(run("11", "10"), run("11", "10"), metrics, samples=20)
    assert numbers["AP50"][2:] == (0.0, 0.0)
    assert numbers["AP50"][0] == numbers["AP50"][1]


def test_a_better_run_has_an_interval_above_zero() -> None:
    metrics = build_metrics(["coco_ap"], ("a",))
    _, _, low, _ = compare(run("1000", "0010"), run("1111", "1111"), metrics, samples=20)["AP50"]
    assert low > 0


def test_both_runs_of_a_comparison_get_the_requested_tracker() -> None:
    """Without a tracker no detection has an id, so nothing is tracked in either."""
    pytest.importorskip("trackeval")
    metrics = build_metrics(["mot"], ("a",))
    numbers = compare(run("1111"), run("1111"), metrics, tracker="none", samples=2)
    assert numbers["HOTA"][:2] == (0.0, 0.0)
    assert compare(run("1111"), run("1111"), metrics, samples=2)["HOTA"][1] > 0


def test_both_runs_of_a_comparison_get_the_options_of_the_tracker() -> None:
    """With so many hits no track gets an id."""
    pytest.importorskip("trackeval")
    metrics, options = build_metrics(["mot"], ("a",)), {"min_hits": 1000}
    numbers = compare(run("1111"), run("1111"), metrics, tracker_options=options, samples=2)
    assert numbers["HOTA"][:2] == (0.0, 0.0)


def test_runs_over_other_frames_are_not_compared() -> None:
    with pytest.raises(RnndetError, match="different frames of v0"):
        check_same(run("11"), run("111"))


def test_runs_with_other_classes_are_not_compared() -> None:
    with pytest.raises(RnndetError, match="different classes"):
        check_same(run("11"), Predictions(("b",)))


def test_runs_with_other_targets_of_tracking_are_compared_without_tracking_metrics() -> None:
    pytest.importorskip("trackeval")
    target = TrackingTarget(
        np.array([[-5.0, 1, 4, 6]]), np.array([0]), np.array([7]), np.zeros(1, np.int8),
        np.array([-1]),
    )  # fmt: skip
    a = run("1111")
    b = a.map(lambda v: replace(v, frames=tuple(replace(f, tracking=target) for f in v.frames)))
    compare(a, b, build_metrics(["coco_ap"], ("a",)), samples=2)
    for first, second in ((a, b), (b, a)):
        with pytest.raises(RnndetError, match="different labels of v0 for tracking"):
            compare(first, second, build_metrics(["mot"], ("a",)), samples=2)
    with pytest.raises(RnndetError, match="different labels of v0 for tracking"):
        score({"a": a, "b": b}, build_metrics(["mot"], ("a",)))
    assert compare(b, b, build_metrics(["mot"], ("a",)), samples=2)


def test_runs_with_other_labels_are_not_compared() -> None:
    def without_target(video: EvaluatedVideo) -> EvaluatedVideo:
        none = {"target_boxes": BOX[:0], "target_labels": np.zeros(0, np.int32)}
        none |= {"target_ids": np.zeros(0, np.int64), "target_ignore": np.zeros(0, bool)}
        return replace(video, frames=tuple(replace(f, **none) for f in video.frames))

    with pytest.raises(RnndetError, match="different labels of v0"):
        check_same(run("11"), run("11").map(without_target))


def test_the_protocol_names_what_differs_between_runs() -> None:
    a, b = run("11"), run("11")
    a.about, b.about = {"every": 1, "memory": "carried"}, {"every": 1, "memory": "reset"}
    facts = protocol({"A": a, "B": b}, {})
    assert facts["every"] == 1 and facts["frames scored"] == 2
    assert facts["memory"] == {"A": "carried", "B": "reset"}


def test_other_labels_replace_the_whole_ground_truth() -> None:
    """Frame 1 is not in the other data: it becomes unlabelled."""
    target = Target(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]), torch.tensor([7]),
                  torch.tensor([True]))  # fmt: skip
    record = VideoRecord("v0", 64, 64, 30.0, (FrameRecord(0, target),))
    (video,) = with_targets(run("11"), VideoSet(("a",), (record,))).videos
    first, second = video.frames
    assert first.target_boxes.tolist() == [[0, 0, 9, 9]]
    assert (first.target_ids.tolist(), first.target_ignore.tolist()) == ([7], [True])
    assert first.boxes.tolist() == BOX.tolist()
    assert [frame.labelled for frame in video.frames] == [True, False]
    assert len(second.target_boxes) == 0


def test_tracks_of_a_video_do_not_depend_on_the_previous_video() -> None:
    (first,) = run("1111").videos
    tracker = ByteTracker()
    before, after = (with_tracks(first, tracker) for _ in range(2))
    assert [f.ids.tolist() for f in before.frames] == [f.ids.tolist() for f in after.frames]


def test_tracker_times_follow_the_frame_numbers() -> None:
    class Timed(ByteTracker):
        def update(self, detections, *, time=None):
            times.append(time)
            return super().update(detections, time=time)

    (video,), times = run("1111111").videos, []
    with_tracks(video.only(lambda frame: frame.index % 3 == 0), Timed())
    assert times == pytest.approx([0.0, 0.1, 0.2])


def test_all_metrics_include_streaming_only_with_latencies() -> None:
    assert "streaming" not in metric_names(["all"], timed=False)
    assert metric_names(["vid_ap", "all"], timed=True).count("vid_ap") == 1
    assert "streaming" in metric_names(["all"], timed=True)


def test_part_of_the_frames_keeps_ap_by_size_and_classes_named_after_motion() -> None:
    metrics = {"coco_ap": build_metrics(["coco_ap"], ("very_fast",))["coco_ap"]}
    rows, _ = score({"": run("1101", corrupted="0010")}, metrics)
    assert {"AP_medium", "AP50/very_fast"} <= rows[OTHER].keys()
    assert "AP50_fast" not in rows[OTHER]


def test_unknown_metric_lists_the_choices() -> None:
    with pytest.raises(RnndetError, match="choose one of: coco_ap"):
        build_metrics(["map"], ("a",))


def test_streaming_of_a_run_that_was_not_timed_asks_for_latencies() -> None:
    with pytest.raises(RnndetError, match="`latencies`"):
        score({"": run("11")}, build_metrics(["streaming"], ("a",)))


def test_impossible_latencies_are_refused_before_any_video_is_measured() -> None:
    with pytest.raises(RnndetError, match="not negative"):
        build_metrics(["streaming"], ("a",), latencies=[-0.1])


def test_streaming_ap_is_lost_where_nothing_is_shown_yet() -> None:
    # 30 fps, 33.3 ms a frame: the first frame shows nothing, every later one the frame before.
    metrics = build_metrics(["streaming"], ("a",), latencies=[1 / 30])
    rows, _ = score({"": run("1111")}, metrics)
    # 3 of 4 found, all right: precision 1 at the recalls 0, .01, ..., .75 of 101 points.
    assert rows[ALL]["sAP50"] == pytest.approx(76 / 101)
    assert rows[ALL]["missed"] == 1


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("AP", 0.5, "50.0"),
        ("AD", 3.25, "3.25"),
        ("AP", math.nan, "-"),
        ("delay@0.1", 3.25, "3.25"),
        ("ADULT", 0.5, "50.0"),
    ],
)
def test_shares_are_shown_in_per_cent_and_others_as_they_are(column, value, text) -> None:
    assert format_number(column, value) == text


@pytest.mark.parametrize("name", METRICS)
def test_columns_and_units_of_a_metric_name_its_numbers(name) -> None:
    if name == "mot":
        pytest.importorskip("trackeval")
    metric = METRICS[name](("a",))
    names = set(metric.combine([]))
    assert {*metric.columns, *metric.whole_video_numbers} <= names
    assert set(metric.units) <= {key.split("@")[0] for key in names}


def test_no_two_metrics_disagree_on_a_unit() -> None:
    units = [item for metric in METRICS.values() for item in metric.units.items()]
    assert len(dict(units)) == len(set(units))
