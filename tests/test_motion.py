"""Motion groups, matching and overlaps."""

import numpy as np
import pytest

from rnndet.boxes import pairwise_iou, pairwise_share
from rnndet.evaluation.metrics.matching import greedy
from rnndet.evaluation.metrics.motion import UNKNOWN, motion_groups, motion_iou
from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo

Row = tuple[float, int]  # left edge of a box of 100 x 100, and its track


def frame(index: int, *targets: Row) -> EvaluatedFrame:
    boxes = np.array([[x, 0, x + 100, 100] for x, _ in targets], np.float32).reshape(-1, 4)
    ids = np.array([track for _, track in targets], np.int64)
    none, zeros = np.zeros(0, np.int64), np.zeros(len(targets), np.int32)
    return EvaluatedFrame(
        index, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), none.astype(np.int32), none,
        boxes, zeros, ids, zeros.astype(bool),
    )  # fmt: skip


def motion(*frames: EvaluatedFrame) -> list[list[float]]:
    return [
        values.tolist() for values in motion_iou(EvaluatedVideo("clip", None, (99, 99), frames))
    ]


def test_linear_motion() -> None:
    # One frame apart: 90 / 110 = .8182. Two: 80 / 120 = .6667. Ends: (.8182 + .6667) / 2 = .7424.
    rows = motion(frame(0, (0, 1)), frame(1, (10, 1)), frame(2, (20, 1)))
    assert np.concatenate(rows) == pytest.approx([0.742424, 0.818182, 0.742424], abs=1e-6)


def test_an_object_seen_once_does_not_move() -> None:
    assert motion(frame(0, (0, 1))) == [[1.0]]


def test_an_object_that_never_overlaps_itself_has_the_published_smallest_value() -> None:
    rows = motion(*(frame(i, (200 * i, 1)) for i in range(21)))
    assert rows[10] == pytest.approx([1e-10 / 20])
    assert rows[0] == pytest.approx([1e-10 / 10])


def test_window_ends_ten_frames_away() -> None:
    assert motion(frame(0, (0, 1)), frame(10, (200, 1)))[0][0] < 1e-6
    assert motion(frame(0, (0, 1)), frame(11, (200, 1))) == [[1.0], [1.0]]


def test_tracks_are_distinguished_by_identity_not_by_position() -> None:
    rows = motion(frame(0, (0, 1), (500, 2)), frame(1, (510, 2), (0, 1)))
    assert rows[0] == pytest.approx([1.0, 90 / 110])
    assert rows[1] == pytest.approx([90 / 110, 1.0])


def test_target_without_identity_has_no_motion_and_no_group() -> None:
    rows = motion(frame(0, (0, -1), (0, 1)), frame(1, (0, -1)))
    assert np.isnan(rows[0][0]) and rows[0][1] == 1.0
    assert motion_groups(np.array(rows[1])).tolist() == [UNKNOWN]


def test_groups_and_their_bounds() -> None:
    values = np.array([0.91, 0.9, 0.7, 0.69, np.nan])
    assert motion_groups(values).tolist() == [0, 1, 1, 2, UNKNOWN]


def test_no_frames_and_frames_without_targets() -> None:
    assert motion() == []
    assert motion(frame(0), frame(1)) == [[], []]


def test_equals_the_definition_on_random_tracks() -> None:
    random = np.random.default_rng(0)
    index = np.sort(random.choice(60, 40, replace=False)).tolist()
    frames = [
        frame(i, *((x, t) for t, x in enumerate(random.random(3) * 90) if random.random() < 0.8))
        for i in index
    ]
    track = {}
    for own in frames:
        for name, box in zip(own.target_ids, own.target_boxes, strict=True):
            track[own.index, name] = box
    for own, values in zip(frames, motion(*frames), strict=True):
        for name, value in zip(own.target_ids, values, strict=True):
            near = [k for k in range(own.index - 10, own.index + 11) if k != own.index]
            others = np.array([track[k, name] for k in near if (k, name) in track])
            overlap = pairwise_iou(track[own.index, name][None], others)
            assert value == pytest.approx(overlap.mean())


def test_pixels_0_to_9_and_5_to_14_of_a_file_overlap_by_a_third() -> None:
    # 10 pixels wide each, 5 shared: 5 / 15.
    read = np.array([[0.0, 0, 9, 9], [5.0, 0, 14, 9]]) + np.array([0, 0, 1, 1])
    assert pairwise_iou(read, read)[0, 1] == pytest.approx(1 / 3)


def test_greedy_gives_each_target_to_the_first_detection_that_overlaps_it_most() -> None:
    taken = greedy(np.array([[0.6, 0.9], [0.0, 0.8], [0.7, 0.8], [0.0, 0.0]]))
    assert taken.tolist() == [1, -1, 0, -1]


def test_overlap_of_boxes_without_area_is_zero() -> None:
    boxes = np.array([[5.0, 5, 5, 9], [0.0, 0, 10, 10], [9.0, 9, 3, 3]])
    assert np.array_equal(pairwise_iou(boxes, boxes), np.diag([0.0, 1, 0]))
    assert np.array_equal(pairwise_share(boxes, boxes), np.diag([0.0, 1, 0]))


def test_share_is_of_the_first_box() -> None:
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 45, 10]])
    assert pairwise_share(a, b) == 0.5 and pairwise_share(b, a) == 0.125
