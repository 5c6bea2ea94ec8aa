"""Tracking metrics: hand-computed values."""

import math
import sys

import pytest
from evaluated_videos import BOX, FAR, Detection, Target, evaluated, random_video, video

from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.mot import Mot
from rnndet.evaluation.records import EvaluatedVideo

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
