"""Average delay: hand-computed values, and a literal implementation."""

import math

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

from rnndet.boxes import pairwise_iou
from rnndet.evaluation.metrics.delay import FALSE_RATIOS, AverageDelay
from rnndet.evaluation.records import EvaluatedVideo

AWAY = (100.0, 300.0, 140.0, 340.0)  # no target


def score(*videos: EvaluatedVideo) -> dict[str, float]:
    metric = AverageDelay(("a", "b"))
    return metric.combine([metric.measure(video) for video in videos])


def two_instances() -> EvaluatedVideo:
    """Instance 1 in frames 0 to 5, instance 2 in frames 2 to 5: ten targets."""
    detections = {
        1: [Detection(BOX, 0.75), Detection(AWAY, 0.9)],
        2: [Detection(AWAY, 0.8)],
        3: [Detection(BOX, 0.85), Detection(FAR, 0.6), Detection(AWAY, 0.7)],
        4: [Detection(AWAY, 0.6)],
        5: [Detection(AWAY, 0.5)],
    }
    targets = [[Target(BOX, 1)] + [Target(FAR, 2)] * (i >= 2) for i in range(6)]
    return video(*(evaluated(i, detections.get(i, []), targets[i]) for i in range(6)))


def test_two_instances_by_hand() -> None:
    # False positives: .9 .8 .7 .6 .5, at ratios .1 .2 .3 .4 .5. The first above .1 has score .8,
    # above .2 score .7, above .4 score .5; .8 and more are never exceeded: threshold 0.
    # At .8: instance 1 in frame 3 (delay 3), instance 2 never (5 - 2 = 3).  D = 3
    # At .7: instance 1 in frame 1 (delay 1), instance 2 never (3).          D = 2
    # At .5 and 0: instance 1 (delay 1), instance 2 in frame 3 (delay 1).    D = 1
    # AD = 6 / (1/4 + 1/3 + 4/2) - 1 = 72/31 - 1
    numbers = score(two_instances())
    assert [numbers[f"delay@{ratio}"] for ratio in FALSE_RATIOS] == [3, 2, 1, 1, 1, 1]
    assert numbers["AD"] == pytest.approx(41 / 31)
    # Never: instance 2 at .8 and .7, whose only sighting has the score .6.
    assert [numbers[f"never@{ratio}"] for ratio in FALSE_RATIOS] == [0.5, 0.5, 0, 0, 0, 0]


def test_an_instance_detected_after_the_longest_delay_is_not_never_detected() -> None:
    late = [evaluated(i, [Detection(BOX)] * (i >= 40), [Target(BOX)]) for i in range(50)]
    unseen = [evaluated(i, [], [Target(BOX)]) for i in range(50)]
    assert score(video(*late), video(*unseen))["never@0.4"] == 0.5


def test_headline_is_the_combined_number() -> None:
    metric = AverageDelay(("a",))
    parts = [metric.measure(two_instances())]
    numbers = metric.combine(parts)
    assert metric.headline(parts) == {name: numbers[name] for name in ("AD", "never@0.4")}


def test_immediate_detection_has_no_delay() -> None:
    numbers = score(video(*(evaluated(i, [Detection(BOX)], [Target(BOX)]) for i in range(5))))
    assert numbers["AD"] == 0


def test_an_undetected_instance_has_the_delay_of_its_last_target() -> None:
    assert score(video(*(evaluated(i, [], [Target(BOX)]) for i in range(5))))[
        "AD"
    ] == pytest.approx(4)


def test_delay_is_at_most_thirty_frames() -> None:
    late = [evaluated(i, [Detection(BOX)] * (i >= 40), [Target(BOX)]) for i in range(50)]
    assert score(video(*late))["AD"] == pytest.approx(30)


def test_detections_of_another_class_do_not_count() -> None:
    detections = [Detection(BOX, label=1)]
    assert score(video(*(evaluated(i, detections, [Target(BOX)]) for i in range(3))))["AD"] > 1.9


def test_a_detection_counts_only_for_the_target_it_overlaps_most() -> None:
    # Both targets overlap the box by more than .5: 1 fully, 2 by 36/44.
    targets = [Target(BOX, 1), Target(shifted(BOX, 4), 2)]
    clip = video(*(evaluated(i, [Detection(BOX)], targets) for i in range(5)))
    assert score(clip)["delay@3.2"] == 2  # delays 0 and 4


def test_a_duplicate_is_a_false_positive() -> None:
    # Two false positives for five targets: the ratio .2 is exceeded at the second, score .6.
    twice = [Detection(BOX, 0.9), Detection(BOX, 0.6)]
    frames = [
        evaluated(i, twice if i < 2 else [Detection(BOX, 0.3)], [Target(BOX)]) for i in range(5)
    ]
    metric = AverageDelay(("a",))
    assert metric.measure(video(*frames)).false_scores.tolist() == pytest.approx([0.6, 0.6])


@pytest.mark.parametrize("label", [0, -1])
def test_an_ignored_target_is_no_instance_and_absorbs_detections(label: int) -> None:
    targets = [Target(FAR, 2, label, ignore=True), Target(BOX, 1)]
    part = AverageDelay(("a",)).measure(
        video(evaluated(0, [Detection(FAR), Detection(FAR)], targets))
    )
    assert (part.targets, len(part.never), len(part.false_scores)) == (1, 1, 0)


def test_a_target_without_id_is_no_instance() -> None:
    part = AverageDelay(("a",)).measure(video(evaluated(0, [Detection(BOX)], [Target(BOX, id=-1)])))
    assert (part.targets, len(part.never), len(part.false_scores)) == (1, 0, 0)


def test_frames_without_labels_are_skipped() -> None:
    clip = two_instances()
    extra = evaluated(9, [Detection(AWAY, 1.0)] * 9, labelled=False)
    assert score(video(*clip.frames, extra)) == score(clip)


@pytest.mark.parametrize("clips", [[], [video()], [video(evaluated(0, [Detection(BOX)]))]])
def test_no_instance_gives_nan(clips: list[EvaluatedVideo]) -> None:
    numbers = score(*clips)
    assert len(numbers) == 13 and all(math.isnan(value) for value in numbers.values())


def test_order_of_videos_changes_nothing_and_a_part_may_count_twice() -> None:
    metric = AverageDelay(("a", "b"))
    a, b = (metric.measure(random_video(seed)) for seed in (1, 2))
    assert metric.combine([a, b]) == metric.combine([b, a])
    assert metric.combine([a, b, a]) == metric.combine([metric.measure(random_video(1)), b, a])
    assert metric.combine([a, b, a])["AD"] != metric.combine([a, b])["AD"]
    assert metric.combine([a, a])["AD"] == pytest.approx(metric.combine([a])["AD"])


def test_random_videos_equal_the_definition() -> None:
    clips = [random_video(seed) for seed in (3, 4)]
    numbers = score(*clips)
    for ratio in FALSE_RATIOS:
        assert numbers[f"delay@{ratio}"] == pytest.approx(naive_delay(clips, ratio)), ratio


def naive_delay(clips: list[EvaluatedVideo], ratio: float) -> float:
    """Steps 1 to 3 of the definition, one detection at a time."""
    rows, targets = [], 0
    for frame in (frame for clip in clips for frame in clip.frames):
        targets += int((~frame.target_ignore).sum())
        taken = set()
        iou = pairwise_iou(frame.boxes, frame.target_boxes)
        for d, value in enumerate(frame.scores):
            near = [
                (iou[d, g], g)
                for g in range(len(frame.target_labels))
                if frame.target_labels[g] == frame.labels[d] and iou[d, g] >= 0.5
            ]
            free = [g for _, g in sorted(near) if not frame.target_ignore[g] and g not in taken]
            if free:
                taken.add(free[-1])
            elif not any(frame.target_ignore[g] for _, g in near):
                rows.append(value)
    rows = sorted(rows, reverse=True)
    threshold = next((row for k, row in enumerate(rows, 1) if k / targets > ratio), 0)
    delays = []
    for clip in clips:
        for track in {i for f in clip.frames for i in f.target_ids[~f.target_ignore].tolist()}:
            frames = [f for f in clip.frames if track in f.target_ids]
            first, last = frames[0].index, frames[-1].index
            detected = [f.index for f in frames if _is_detected(f, track, threshold)]
            delays.append(min((detected[0] if detected else last) - first, 30))
    return float(np.mean(delays))


def _is_detected(frame, track: int, threshold: float) -> bool:
    g = frame.target_ids.tolist().index(track)
    same = (frame.labels == frame.target_labels[g]) & (frame.scores >= threshold)
    iou = pairwise_iou(frame.boxes, frame.target_boxes[g : g + 1])[:, 0]
    return bool((same & (iou > 0.5)).any())
