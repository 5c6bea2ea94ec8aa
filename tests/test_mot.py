"""Tracking metrics: hand-computed values."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from evaluated_videos import BOX, FAR, Detection, Target, evaluated, random_video, video

from rnndet.data.targets import ANY_CLASS
from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.mot import Mot
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo
from rnndet.structures import Role, TrackingTarget

pytest.importorskip("trackeval")

AWAY = (100.0, 300.0, 140.0, 340.0)  # no target


def score(*videos: EvaluatedVideo) -> dict[str, float]:
    metric = Mot(("a", "b"))
    return metric.combine([metric.measure(video) for video in videos])


def swap(count: int = 10, *, label: int = 0, name: str = "clip") -> EvaluatedVideo:
    """Two objects, found exactly; their ids are exchanged half way."""
    frames = []
    for i in range(count):
        first, second = (1, 2) if i < count // 2 else (2, 1)
        detections = [Detection(BOX, label=label, id=first), Detection(FAR, label=label, id=second)]
        frames.append(evaluated(i, detections, [Target(BOX, 7, label), Target(FAR, 9, label)]))
    return video(*frames, name=name)


def test_a_perfect_tracker_has_ones() -> None:
    numbers = score(video(*(evaluated(i, [Detection(BOX, id=4)], [Target(BOX)]) for i in range(5))))
    assert numbers["IDSW"] == 0
    for name in ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "HOTA/a"):
        assert numbers[name] == pytest.approx(1)


def test_an_exchange_of_ids() -> None:
    # 20 targets, all found. 2 switches: MOTA = 1 - 2/20. The best pairing of ids is right in 10 of
    # 20 places: IDF1 = 10 / (10 + 10/2 + 10/2). Each of the four pairs of ids has 5 places in
    # common, of 10 and 10: AssA = 5 / 15, DetA = 1, HOTA = sqrt(1/3), at every IoU.
    numbers = score(swap())
    assert numbers["IDSW"] == 2
    assert numbers["MOTA"] == pytest.approx(0.9)
    assert numbers["IDF1"] == pytest.approx(0.5)
    assert numbers["DetA"] == pytest.approx(1)
    assert numbers["AssA"] == pytest.approx(1 / 3)
    assert numbers["HOTA"] == pytest.approx(math.sqrt(1 / 3))


def test_classes_are_averaged_and_switches_are_summed() -> None:
    constant = video(
        *(evaluated(i, [Detection(BOX, 0.9, 1, 1)], [Target(BOX, 1, 1)]) for i in range(4))
    )
    numbers = score(swap(), constant)
    assert numbers["IDF1"] == pytest.approx((0.5 + 1) / 2)
    assert (numbers["IDF1/a"], numbers["IDF1/b"]) == (pytest.approx(0.5), pytest.approx(1))
    assert (numbers["IDSW"], numbers["IDSW/a"], numbers["IDSW/b"]) == (2, 2, 0)


def test_a_class_without_targets_is_absent_and_not_in_the_mean() -> None:
    detections = [Detection(BOX, id=1), Detection(FAR, label=1, id=2)]
    numbers = score(video(*(evaluated(i, detections, [Target(BOX)]) for i in range(4))))
    assert numbers["MOTA"] == pytest.approx(1) and "MOTA/b" not in numbers


def test_detections_without_a_track_are_dropped() -> None:
    detections = [Detection(BOX, id=1), Detection(AWAY, id=0)]
    numbers = score(video(*(evaluated(i, detections, [Target(BOX)]) for i in range(4))))
    assert numbers["MOTA"] == numbers["DetA"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("detections", "targets", "who"),
    [
        ([Detection(BOX, id=1), Detection(AWAY, id=1)], [Target(BOX)], "track 1"),
        ([Detection(BOX, id=1)], [Target(BOX, 7), Target(FAR, 7)], "target 7"),
    ],
)
def test_identity_that_a_frame_has_twice_is_refused(
    detections: list[Detection], targets: list[Target], who: str
) -> None:
    """As in trackeval: its figures count such a frame as if it were right."""
    frames = [
        evaluated(0, [Detection(BOX, id=1)], [Target(BOX)]),
        evaluated(5, detections, targets),
    ]
    with pytest.raises(RnndetError, match=f"clip, frame 5: {who} of a occurs twice"):
        score(video(*frames))


def test_identity_may_occur_once_in_each_class_and_in_ignored_targets() -> None:
    detections = [Detection(BOX, id=1), Detection(FAR, label=1, id=1)]
    targets = [Target(BOX, 7), Target(FAR, 7, 1), Target(AWAY, 7, ignore=True)]
    assert score(video(evaluated(0, detections, targets)))["MOTA"] == pytest.approx(1)


@pytest.mark.parametrize(
    "target",
    [Target(FAR, 2, ignore=True), Target(FAR, 2, -1, ignore=True), Target(FAR, -1)],
)
def test_ignored_and_unknown_targets_go_with_their_detections(target: Target) -> None:
    detections = [Detection(BOX, id=1), Detection(FAR, id=2)]
    numbers = score(video(*(evaluated(i, detections, [Target(BOX), target]) for i in range(4))))
    assert numbers["MOTA"] == numbers["HOTA"] == pytest.approx(1)


def test_an_ignored_target_takes_no_detection_that_fits_a_target_better() -> None:
    targets = [Target(BOX), Target((10.0, 10.0, 50.0, 54.0), 2, ignore=True)]
    numbers = score(video(*(evaluated(i, [Detection(BOX, id=1)], targets) for i in range(4))))
    assert numbers["MOTA"] == pytest.approx(1)


# targets of tracking


def with_tracking(frame: EvaluatedFrame, *rows: tuple, min_height: float = 0) -> EvaluatedFrame:
    """The frame with targets for tracking: box, label, id, role."""
    boxes, labels, ids, roles = zip(*rows, strict=True)
    target = TrackingTarget(
        np.array(boxes, float), np.array(labels), np.array(ids), np.array(roles, np.int8),
        np.full(len(rows), -1), min_height,
    )  # fmt: skip
    return replace(frame, tracking=target)


def counts(frame: EvaluatedFrame) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of class 0 at IoU .5."""
    result = Mot(("a", "b")).measure(video(frame))[0]["CLEAR"]
    return tuple(int(result[f"CLR_{name}"]) for name in ("TP", "FP", "FN"))


WHOLE = (100.0, 100.0, 200.0, 300.0)
BESIDE = (120.0, 100.0, 220.0, 300.0)  # IoU with WHOLE .667, with NEIGHBOUR .818
NEIGHBOUR = (130.0, 100.0, 230.0, 300.0)


@pytest.mark.parametrize(
    ("role", "expected"),
    [(Role.DISTRACTOR, (0, 0, 1)), (Role.UNCOUNTED, (1, 0, 0)), (Role.COUNTED, (1, 0, 1))],
)
def test_detection_nearer_to_a_distractor_is_removed_with_it(
    role: Role, expected: tuple[int, int, int]
) -> None:
    """trackeval gives MOTA 0 for the distractor: the detection is removed before scoring."""
    frame = evaluated(0, [Detection(BESIDE, id=5)])
    frame = with_tracking(frame, (WHOLE, 0, 1, Role.COUNTED), (NEIGHBOUR, 0, 2, role))
    assert counts(frame) == expected


def test_each_target_takes_one_detection_in_the_matching_with_distractors() -> None:
    detections = [Detection(BESIDE, id=5), Detection(NEIGHBOUR, id=6)]
    rows = [(WHOLE, 0, 1, Role.COUNTED), (NEIGHBOUR, 0, 2, Role.DISTRACTOR)]
    assert counts(with_tracking(evaluated(0, detections), *rows)) == (1, 0, 0)


def test_detection_nearer_to_an_uncounted_box_than_to_a_distractor_stays() -> None:
    rows = [(WHOLE, 0, 1, Role.DISTRACTOR), (NEIGHBOUR, ANY_CLASS, 2, Role.UNCOUNTED)]
    assert counts(with_tracking(evaluated(0, [Detection(BESIDE, id=5)]), *rows)) == (0, 1, 0)


def test_detection_on_an_uncounted_box_alone_is_a_mistake() -> None:
    rows = [(WHOLE, 0, 1, Role.COUNTED), (FAR, ANY_CLASS, 2, Role.UNCOUNTED)]
    assert counts(with_tracking(evaluated(0, [Detection(FAR, id=5)]), *rows)) == (0, 1, 1)


def test_target_outside_the_image_counts() -> None:
    outside = (-90.0, 0.0, -30.0, 60.0)
    found = evaluated(0, [Detection(outside, id=5)])
    assert counts(with_tracking(found, (outside, 0, 1, Role.COUNTED))) == (1, 0, 0)


def test_region_of_all_classes_removes_only_unmatched_detections() -> None:
    detections = [Detection(WHOLE, id=5), Detection((110.0, 110.0, 150.0, 150.0), id=6)]
    rows = [(WHOLE, 0, 1, Role.COUNTED), ((0.0, 0.0, 400.0, 400.0), ANY_CLASS, -1, Role.REGION)]
    assert counts(with_tracking(evaluated(0, detections), *rows)) == (1, 0, 0)


@pytest.mark.parametrize(("width", "false"), [(20.0, 1), (20.5, 0)])
def test_region_removes_detections_of_which_more_than_half_lies_inside(
    width: float, false: int
) -> None:
    rows = [(WHOLE, 0, 1, Role.COUNTED), ((10.0, 10.0, 10 + width, 50.0), 0, -1, Role.REGION)]
    assert counts(with_tracking(evaluated(0, [Detection(BOX, id=5)]), *rows)) == (0, false, 1)


@pytest.mark.parametrize(("bottom", "false"), [(35.0, 0), (35.5, 1)])
def test_unmatched_detections_of_small_height_are_removed(bottom: float, false: int) -> None:
    found = evaluated(0, [Detection((10.0, 10.0, 50.0, bottom), id=5)])
    frame = with_tracking(found, (WHOLE, 0, 1, Role.COUNTED), min_height=25)
    assert counts(frame) == (0, false, 1)


def test_matched_detection_of_small_height_counts() -> None:
    low = (10.0, 10.0, 50.0, 20.0)
    frame = with_tracking(
        evaluated(0, [Detection(low, id=5)]), (low, 0, 1, Role.COUNTED), min_height=25
    )
    assert counts(frame) == (1, 0, 0)


def test_detections_without_any_track_give_zeros() -> None:
    numbers = score(video(*(evaluated(i, [Detection(BOX)], [Target(BOX)]) for i in range(3))))
    assert numbers["HOTA"] == numbers["IDF1"] == numbers["MOTA"] == numbers["IDSW"] == 0


def test_frames_without_labels_are_skipped() -> None:
    extra = evaluated(99, [Detection(AWAY, id=8)], labelled=False)
    assert score(video(*swap().frames, extra)) == score(swap())


@pytest.mark.parametrize("clips", [[], [video()], [video(evaluated(0, [Detection(BOX, id=1)]))]])
def test_no_target_gives_nan(clips: list[EvaluatedVideo]) -> None:
    numbers = score(*clips)
    assert len(numbers) == 6 and all(math.isnan(value) for value in numbers.values())


def test_order_of_videos_changes_nothing_and_a_part_may_count_twice() -> None:
    metric = Mot(("a", "b"))
    a, b = (metric.measure(random_video(seed)) for seed in (1, 2))
    assert metric.combine([a, b]) == pytest.approx(metric.combine([b, a]))
    assert metric.combine([a, a])["HOTA"] == pytest.approx(metric.combine([a])["HOTA"])
    assert metric.combine([a, a, b])["HOTA"] != metric.combine([a, b])["HOTA"]
    assert metric.combine([metric.measure(swap())] * 2)["IDSW"] == 4
    assert metric.headline([a, b]).items() <= metric.combine([a, b]).items()


def test_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    score(swap())
    assert capsys.readouterr().out == ""


def test_missing_package_is_reported_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    with pytest.raises(RnndetError, match=r"install rnndet\[eval\]"):
        Mot(("a",))
