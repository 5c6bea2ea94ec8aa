"""Trackers, their motion filter and their matching."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from conftest import detections
from rnndet.errors import RnndetError
from rnndet.structures import Detections
from rnndet.tracking import (
    TRACKERS,
    ByteTracker,
    IouTracker,
    OcSortTracker,
    SortTracker,
    make_tracker,
)
from rnndet.tracking.assign import assign, buffered_iou
from rnndet.tracking.kalman import ConstantVelocity
from rnndet.tracking.observed import MOST_STEPS, ObservedMotion, direction_agreement
from rnndet.tracking.tracks import LastBox, TrackOptions, Tracks

FRAME = 0.04  # seconds
REAL = ["iou", "sort", "byte", "oc_sort"]


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Detections from (centre x, centre y, width, height, score, label) rows."""
    if not rows:
        return Detections.empty()
    table = np.array(sorted(rows, key=lambda row: -row[4]), np.float32)
    centre, half = table[:, :2], table[:, 2:4] / 2
    return detections(np.hstack([centre - half, centre + half]), table[:, 4], table[:, 5])


def run(tracker, frames: list[Detections]) -> list[list[int]]:
    """The ids of every frame, given FRAME seconds apart."""
    return [tracker.update(d, time=k * FRAME).ids.tolist() for k, d in enumerate(frames)]


def walk(count: int, *, step: float, score: float = 0.9) -> list[Detections]:
    """A 20 px object that moves `step` pixels to the right per frame."""
    return [found((100 + k * step, 50, 20, 20, score, 0)) for k in range(count)]


# matching


def test_assign_minimises_the_total_cost_and_is_not_greedy():
    rows, columns = assign(np.array([[0.1, 0.2], [0.2, 0.9]]), limit=1.0)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 5), (6, 4)])
def test_assign_equals_the_solver_with_and_without_rivals(shape):
    rng = np.random.default_rng(0)
    for share in (0.05, 0.15, 0.5):  # of pairs below the limit
        for _ in range(50):
            cost = np.where(rng.random(shape) < share, 0.0, 0.5) + rng.random(shape) / 2
            solved = linear_sum_assignment(np.minimum(cost, 0.5))
            below = cost[solved] < 0.5
            rows, columns = assign(cost, limit=0.5)
            assert rows.tolist() == solved[0][below].tolist()
            assert columns.tolist() == solved[1][below].tolist()


def test_assign_never_matches_at_the_limit():
    rows, columns = assign(np.array([[0.5, 0.7], [0.7, 0.7]]), limit=0.7)
    assert (rows.tolist(), columns.tolist()) == ([0], [0])


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_assign_of_nothing_is_nothing(shape):
    rows, columns = assign(np.zeros(shape), limit=1.0)
    assert len(rows) == len(columns) == 0


def test_buffered_iou_of_boxes_one_width_apart():
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[10.0, 0, 20, 10]])
    assert buffered_iou(a, b, buffer=0.0)[0, 0] == 0
    # grown to 20x20, 10 apart: overlap 10*20, union 2*400 - 200
    assert buffered_iou(a, b, buffer=0.5)[0, 0] == pytest.approx(1 / 3)


# motion


def test_filter_returns_its_first_box():
    motion = ConstantVelocity()
    motion.add(np.array([[10.0, 20, 40, 60]]))
    np.testing.assert_allclose(motion.boxes, [[10, 20, 40, 60]])


def test_filter_learns_a_constant_velocity():
    motion = ConstantVelocity()
    motion.add(np.array([[0.0, 0, 20, 20]]))
    for k in range(1, 8):
        motion.predict(FRAME)
        motion.update(np.array([0]), np.array([[12.0 * k, 0, 12 * k + 20, 20]]))
    motion.predict(3 * FRAME)
    np.testing.assert_allclose(motion.boxes, [[120, 0, 140, 20]], atol=1.0)


def test_two_predictions_of_half_the_time_equal_a_single_one():
    boxes = np.array([[0.0, 0, 20, 10], [50, 50, 65, 90]])
    once, twice = ConstantVelocity(), ConstantVelocity()
    for motion, steps in ((once, 1), (twice, 2)):
        motion.add(boxes)
        motion.predict(FRAME)
        motion.update(np.array([0, 1]), boxes + 7)
        for _ in range(steps):
            motion.predict(0.2 / steps)
        motion.update(np.array([0, 1]), boxes + 30)  # shows differences of the covariance too
    np.testing.assert_allclose(once.boxes, twice.boxes)


def test_filter_is_the_same_at_every_scale():
    """Ten times larger and faster objects give ten times the prediction."""
    boxes = []
    for scale in (1.0, 10.0):
        motion = ConstantVelocity()
        motion.add(np.array([[0.0, 0, 20, 10]]) * scale)
        motion.predict(FRAME)
        motion.update(np.array([0]), np.array([[8.0, 3, 29, 12]]) * scale)
        motion.predict(FRAME)
        boxes.append(motion.boxes / scale)
    np.testing.assert_allclose(boxes[0], boxes[1])


def test_a_box_without_area_keeps_the_filter_finite():
    motion = ConstantVelocity()
    motion.add(np.array([[5.0, 5, 5, 5]]))
    motion.predict(FRAME)
    motion.update(np.array([0]), np.array([[5.0, 5, 5, 5]]))
    assert np.isfinite(motion.boxes).all()


# trackers


@pytest.mark.parametrize("name", REAL)
def test_ids_start_at_one_for_every_tracker_object(name):
    for _ in range(2):
        ids = run(TRACKERS[name](min_hits=1), walk(2, step=2))
        assert ids == [[1], [1]]


@pytest.mark.parametrize("name", REAL)
def test_reset_starts_ids_at_one(name):
    tracker = TRACKERS[name](min_hits=1)
    tracker.update(found((10, 10, 20, 20, 0.9, 0), (90, 90, 20, 20, 0.9, 0)))
    tracker.reset()
    assert tracker.update(found((200, 50, 20, 20, 0.9, 0))).ids.tolist() == [1]


@pytest.mark.parametrize("name", REAL)
def test_video_b_after_a_equals_b_alone(name):
    a, b = walk(6, step=3), walk(8, step=5)
    alone = run(TRACKERS[name](), b)
    tracker = TRACKERS[name]()
    run(tracker, a)
    tracker.reset()
    assert run(tracker, b) == alone


@pytest.mark.parametrize("name", REAL)
def test_frames_without_detections_give_empty_ids(name):
    tracked = TRACKERS[name]().update(Detections.empty(), time=0.0)
    assert len(tracked) == 0
    assert tracked.ids.dtype == np.int64
    assert tracked.ids.shape == (0,)


@pytest.mark.parametrize("name", REAL)
def test_boxes_scores_and_labels_are_the_detectors(name):
    given = found((30, 30, 20, 20, 0.9, 2), (200, 80, 30, 20, 0.5, 1))
    tracked = TRACKERS[name]().update(given)
    for field in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(tracked, field), getattr(given, field))


def test_none_is_no_tracker():
    assert TRACKERS["none"](min_score=0.5) is None


@pytest.mark.parametrize("name", REAL)
def test_slow_object_keeps_its_id_through_three_missed_frames(name):
    frames = walk(16, step=1)
    frames[8] = frames[9] = frames[10] = Detections.empty()
    ids = run(TRACKERS[name](), frames)
    assert {i for row in ids[1:] for i in row} == {1}
    assert ids[8:11] == [[], [], []]


@pytest.mark.parametrize("step", [10, 20])
def test_byte_keeps_an_object_that_moves_its_own_size_through_three_missed_frames(step):
    frames = walk(16, step=step)
    frames[8] = frames[9] = frames[10] = Detections.empty()
    ids = run(ByteTracker(), frames)
    assert {i for row in ids[1:] for i in row} == {1}


@pytest.mark.parametrize("name", ["sort", "byte"])
def test_crossing_objects_keep_their_ids(name):
    frames = [
        found((20 + 8 * k, 50, 24, 16, 0.9, 0), (180 - 8 * k, 56, 24, 16, 0.8, 0))
        for k in range(21)
    ]
    ids = run(TRACKERS[name](duplicate_iou=1.0) if name == "byte" else SortTracker(), frames)
    assert ids[1:] == [[1, 2]] * 20  # in order of score, so the pairing never swaps


def test_an_id_is_given_at_the_second_hit():
    assert run(ByteTracker(min_hits=2), walk(3, step=2)) == [[0], [1], [1]]


def test_a_single_false_alarm_takes_no_id():
    frames = [found((50, 50, 20, 20, 0.9, 0))] + [Detections.empty()] * 10 + walk(3, step=2)
    assert run(ByteTracker(), frames)[-1] == [1]


@pytest.mark.parametrize("name", REAL)
def test_empty_frames_age_tracks_in_seconds(name):
    for gap, same in ((0.4, True), (0.6, False)):
        tracker = TRACKERS[name](max_age=0.5, min_hits=1)
        box = found((50, 50, 20, 20, 0.9, 0))
        tracker.update(box, time=0.0)
        tracker.update(Detections.empty(), time=gap / 2)
        tracker.update(Detections.empty(), time=gap - 0.01)
        tracker.update(Detections.empty(), time=gap)
        assert (tracker.update(box, time=gap + 0.01).ids.tolist() == [1]) == same


def test_next_frame_is_matched_at_any_frame_rate():
    tracker = ByteTracker(max_age=0.5)
    ids = [tracker.update(found((50, 50, 20, 20, 0.9, 0)), time=2.0 * k).ids for k in range(4)]
    assert [i.tolist() for i in ids] == [[0], [1], [1], [1]]


def test_time_that_does_not_increase_is_replaced_by_the_frame_interval():
    tracker = ByteTracker(max_age=0.1, frame_interval=0.04)
    box = found((50, 50, 20, 20, 0.9, 0))
    ids = [tracker.update(box, time=0.0).ids.tolist() for _ in range(3)]
    for _ in range(4):
        tracker.update(Detections.empty(), time=0.0)
    assert ids == [[0], [1], [1]]
    assert tracker.update(box, time=0.0).ids.tolist() == [0]  # forgotten


def test_object_misclassified_in_a_frame_keeps_its_id():
    frames = [found((100 + 15 * k, 50, 20, 20, 0.8, 2 if k == 5 else 0)) for k in range(9)]
    assert run(ByteTracker(), frames)[1:] == [[1]] * 8


def test_candidate_of_the_same_class_is_preferred():
    tracker = ByteTracker(duplicate_iou=1.0)
    run(tracker, [found((100, 50, 20, 20, 0.9, 1))] * 3)
    pair = found((96, 50, 20, 20, 0.9, 0), (104, 50, 20, 20, 0.8, 1))
    assert tracker.update(pair, time=3 * FRAME).ids.tolist() == [0, 1]


def test_classes_of_a_track_are_weighed_by_score():
    tracks = Tracks(LastBox(), TrackOptions(min_hits=1))
    box = np.array([[0.0, 0, 10, 10]])
    tracks.start(box, np.array([0.2]), np.array([0]))
    tracks.update(np.array([0]), box, np.array([0.6]), np.array([1]))
    np.testing.assert_allclose(tracks.class_share(np.array([0, 1])), [[0.25, 0.75]])


def test_duplicate_of_another_class_is_removed():
    twice = found((50, 50, 20, 20, 0.9, 0), (51, 50, 20, 20, 0.6, 3), (150, 50, 20, 20, 0.5, 1))
    tracked = ByteTracker().update(twice)
    assert tracked.labels.tolist() == [0, 1]
    assert len(ByteTracker(duplicate_iou=1.0).update(twice)) == 3


def test_low_scores_extend_tracks_but_start_none():
    scores = [0.9, 0.9, 0.2, 0.15, 0.9]
    frames = [found((100 + 2 * k, 50, 20, 20, s, 0)) for k, s in enumerate(scores)]
    assert run(ByteTracker(), frames)[1:] == [[1]] * 4
    assert run(ByteTracker(), walk(5, step=2, score=0.35)) == [[0]] * 5
    assert run(SortTracker(), frames)[2:4] == [[0], [0]]


@pytest.mark.parametrize(("hidden", "ids"), [(0.32, [1]), (0.36, [0])])
def test_uncertain_detection_revives_a_track_for_a_third_of_a_second(hidden, ids):
    tracker = ByteTracker()
    run(tracker, walk(3, step=0))
    last = 2 * FRAME
    for k in range(1, round(hidden / FRAME)):
        tracker.update(Detections.empty(), time=last + k * FRAME)
    weak = found((100, 50, 20, 20, 0.2, 0))
    assert tracker.update(weak, time=last + hidden).ids.tolist() == ids


def test_a_score_below_a_threshold_near_one_starts_no_track():
    assert run(ByteTracker(min_score=0.98), walk(5, step=1, score=0.96)) == [[0]] * 5
    assert run(ByteTracker(min_score=0.98), walk(5, step=1, score=0.985))[-1] == [1]


def test_ids_are_unique_within_a_frame():
    generator = np.random.default_rng(3)
    tracker = ByteTracker()
    for k in range(30):
        table = generator.random((12, 6)) * [200, 200, 40, 40, 1, 3]
        rows = [(*row[:5], int(row[5])) for row in table.tolist()]
        ids = tracker.update(found(*rows), time=k * FRAME).ids
        given = ids[ids > 0]
        assert len(given) == len(np.unique(given))


@pytest.mark.parametrize("name", REAL)
def test_bad_options_are_refused(name):
    with pytest.raises(RnndetError, match="min_hits"):
        TRACKERS[name](min_hits=0)


def test_iou_tracker_gives_ids_at_once():
    assert run(IouTracker(), walk(2, step=2)) == [[1], [1]]


# widening


def test_jump_is_matched_while_another_track_stays_where_it_is():
    """The first stage leaves one of two tracks to the wide stages."""
    still = (400, 300, 20, 20, 0.9, 0)
    places = [100, 100, 100, 100, 128]  # the jump is longer than the object
    assert run(ByteTracker(), [found(still, (x, 50, 20, 20, 0.8, 0)) for x in places])[-1] == [1, 2]


def test_widening_shrinks_with_a_shorter_interval():
    widest = []
    for interval in (0.04, 0.1, 0.2):
        tracker = ByteTracker(max_widening=10.0, tentative_share=1.0)
        tracker.update(found((50, 50, 20, 20, 0.9, 0)), time=0.0)
        tracker.update(Detections.empty(), time=interval)
        widest.append(float(tracker._wide_buffers()[0]))
    assert widest[0] < widest[1] < widest[2]


def test_widening_grows_with_the_speed_of_the_object():
    widest = []
    for step in (0, 5, 10):
        tracker = ByteTracker(max_widening=10.0)
        run(tracker, walk(12, step=step))
        for k in range(12, 16):
            tracker.update(Detections.empty(), time=k * FRAME)
        widest.append(float(tracker._wide_buffers()[0]))
    assert widest[0] < widest[1] < widest[2]


@pytest.mark.parametrize(("height", "ids"), [(24, [1]), (40, [0])])
def test_only_boxes_of_similar_size_are_matched_without_overlap(height, ids):
    tracker = ByteTracker(min_widening=1.0, max_widening=1.0)
    run(tracker, [found((100 + 15 * k, 50, 20, 20, 0.9, 0)) for k in range(4)])
    below = found((155, 61 + height / 2, 20, height, 0.9, 0))  # from 1 px below the track on
    assert tracker.update(below, time=4 * FRAME).ids.tolist() == ids


# evidence and similarity of the default tracker


def test_a_track_of_low_scores_gets_its_id_when_they_sum_to_min_evidence():
    ids = run(ByteTracker(min_evidence=1.5), walk(4, step=1, score=0.5))
    assert ids == [[0], [0], [1], [1]]


def test_five_detections_at_the_threshold_are_always_enough_evidence():
    tracker = ByteTracker(min_score=0.1, start_margin=0.0)
    assert run(tracker, walk(6, step=1, score=0.1)) == [[0], [0], [0], [0], [1], [1]]


@pytest.mark.parametrize("others", [0.02, 0.3, 0.9])
def test_the_evidence_for_an_object_does_not_change_with_the_threshold_of_another_class(others):
    tracker = ByteTracker(min_score=np.array([0.3, others]))
    assert run(tracker, walk(5, step=1, score=0.5)) == [[0], [0], [1], [1], [1]]
    tracker = ByteTracker(min_score=np.array([others, 0.02]))
    frames = [found((100 + k, 50, 20, 20, 0.13, 1)) for k in range(3)]
    assert run(tracker, frames) == [[0], [1], [1]]  # five detections at 0.02 are enough


@pytest.mark.parametrize(("interval", "step"), [(0.2, 24), (1 / 30, 18), (1 / 60, 12)])
def test_fast_neighbours_of_low_scores_get_ids_within_four_frames(interval, step):
    tracker = ByteTracker()
    for k in range(4):
        rows = [(100 + step * k, y, 20, 20, 0.41, 0) for y in (50, 80)]
        ids = tracker.update(found(*rows), time=k * interval).ids
    assert sorted(ids.tolist()) == [1, 2]


def test_min_hits_of_one_needs_no_evidence():
    assert run(ByteTracker(min_hits=1), walk(1, step=0, score=0.5)) == [[1]]


def test_the_other_trackers_need_no_evidence():
    for name in ("sort", "oc_sort"):
        assert run(TRACKERS[name](), walk(2, step=1, score=0.35)) == [[0], [1]], name


@pytest.mark.parametrize(("interval", "ids"), [(1 / 30, [1]), (0.1, [0])])
def test_a_tentative_track_may_miss_a_frame_of_a_thirtieth_of_a_second_only(interval, ids):
    tracker = ByteTracker(min_evidence=0.0)
    tracker.update(found((100, 50, 20, 20, 0.9, 0)), time=0.0)
    tracker.update(Detections.empty(), time=interval)
    again = found((100, 50, 20, 20, 0.9, 0))
    assert tracker.update(again, time=2 * interval).ids.tolist() == ids


def after_four_frames(
    missed: int, *, dx: float, score: float, width: float = 20, **options: float
) -> tuple[float, list[int]]:
    """IoU with the track of an object that stands still, of a box dx pixels away, and its ids."""
    tracker = ByteTracker(widening=0.0, lone_widening=0.0, **options)
    run(tracker, walk(4, step=0))
    for k in range(4, 4 + missed):
        tracker.update(Detections.empty(), time=k * FRAME)
    box = found((100 + dx, 50, width, 20, score, 0))
    overlap = buffered_iou(tracker.expected()[0], box.boxes.astype(float), buffer=0.0)[0, 0]
    return overlap, tracker.update(box, time=(4 + missed) * FRAME).ids.tolist()


@pytest.mark.parametrize(("score", "ids"), [(0.9, [1]), (0.45, [0])])
def test_a_lower_score_needs_more_overlap(score, ids):
    overlap, found_ids = after_four_frames(0, dx=12.0, score=score)
    assert 0.125 / 0.61 < overlap < 0.125 / 0.45  # .45 of the similarity is left at a score of .45
    assert found_ids == ids


def test_objects_of_low_scores_are_tracked_at_a_low_threshold():
    tracker = ByteTracker(min_score=0.02, start_margin=0.0, min_hits=1)
    assert run(tracker, walk(4, step=5, score=0.03)) == [[1]] * 4


def test_without_a_score_weight_the_score_has_no_effect_on_the_overlap():
    assert after_four_frames(0, dx=12.0, score=0.45, score_weight=0.0)[1] == [1]


@pytest.mark.parametrize(("dx", "ids"), [(10.0, [1]), (12.0, [0])])
def test_scores_below_the_threshold_need_low_similarity(dx, ids):
    overlap, found_ids = after_four_frames(0, dx=dx, score=0.2)
    assert (overlap > 0.3) == (ids == [1])
    assert found_ids == ids


@pytest.mark.parametrize("interval", [1 / 60, 0.1, 0.5, 2.0])
def test_a_low_score_extends_a_track_that_was_not_missed_at_any_frame_rate(interval):
    tracker = ByteTracker()
    ids = [
        tracker.update(found((100, 50, 20, 20, score, 0)), time=k * interval).ids.tolist()
        for k, score in enumerate((0.9, 0.9, 0.2, 0.2))
    ]
    assert ids == [[0], [1], [1], [1]]


def test_a_low_score_does_not_extend_a_track_that_was_missed_at_a_low_frame_rate():
    tracker, scores = ByteTracker(max_age=9.0), (0.9, 0.9, None, 0.2)
    for k, score in enumerate(scores):
        shown = Detections.empty() if score is None else found((100, 50, 20, 20, score, 0))
        ids = tracker.update(shown, time=0.5 * k).ids
    assert ids.tolist() == [0]


@pytest.mark.parametrize(("missed", "ids"), [(5, [1]), (15, [0])])
def test_a_track_missed_for_long_needs_late_iou(missed, ids):
    not_wide = {"width": 21, "size_change": 0.01}  # so that the wide stages leave the pair out
    overlap, found_ids = after_four_frames(missed, dx=14.0, score=1.0, **not_wide)
    assert 0.125 < overlap < 0.2
    assert found_ids == ids


# observations


def test_pairs_that_continue_the_direction_agree_most():
    motion = ObservedMotion(momentum_time=0.1)
    motion.add(np.array([[0.0, 0, 20, 20]]))
    for k in range(1, 5):
        motion.predict(0.1)
        motion.update(np.array([0]), np.array([[10.0 * k, 0, 10 * k + 20, 20]]))
    start = motion.earlier[0]
    right, down = np.array([30, 0, 30, 0]), np.array([0, 30, 0, 30])
    agreement = direction_agreement(motion, start + np.stack([right, down, -right]))
    np.testing.assert_allclose(agreement, [[0.5, 0.0, -0.5]], atol=1e-9)


def test_oc_sort_prefers_the_detection_in_the_direction_of_the_track():
    """Of two boxes with the same IoU, one lies ahead and one behind."""
    frames = [found((100 + 4 * k, 50, 40, 40, 0.9, 0)) for k in range(6)]
    kalman = {"initial_speed": 0.0, "acceleration": 0.0, "turning": 0.0}  # predicts no motion
    ids = []
    for momentum in (0.0, 0.5):
        tracker = OcSortTracker(momentum=momentum, min_hits=1, **kalman)
        run(tracker, frames)
        x = float(tracker.expected()[0][0, [0, 2]].mean())
        pair = found((x - 19.9, 50, 40, 40, 0.9, 0), (x + 20.1, 50, 40, 40, 0.8, 0))
        ids.append(tracker.update(pair, time=6 * FRAME).ids.tolist())
    assert ids == [[1, 2], [2, 1]]


def test_a_direction_is_measured_over_the_momentum_time():
    motion = ObservedMotion(momentum_time=0.1)
    motion.add(np.array([[0.0, 0, 20, 20]]))
    spans = []
    for k in range(1, 40):
        motion.predict(FRAME)
        motion.update(np.array([0]), np.array([[1.0 * k, 0, k + 20, 20]]))
        spans.append((motion.last[0, 0] - motion.earlier[0, 0]) * FRAME)
    assert min(spans[10:]) >= 0.1 - 1e-9
    assert max(spans) <= 2 * (0.1 + FRAME)


def test_re_update_gives_the_velocity_between_the_observations():
    """The object turns round while it is hidden."""
    speeds = []
    for re_update in (False, True):
        motion = ObservedMotion(re_update=re_update)
        motion.add(np.array([[0.0, 0, 20, 20]]))
        for k in range(1, 10):
            motion.predict(FRAME)
            motion.update(np.array([0]), np.array([[5.0 * k, 0, 5 * k + 20, 20]]))
        for _ in range(10):
            motion.predict(FRAME)
        motion.update(np.array([0]), np.array([[5.0, 0, 25, 20]]))  # 40 px back in 10 frames
        before = motion.boxes[0, 0]
        motion.predict(FRAME)
        speeds.append(motion.boxes[0, 0] - before)
    assert speeds[1] == pytest.approx(-4.0, abs=1.0)
    assert abs(speeds[0] + 4.0) > 2.0


def test_re_update_without_a_gap_changes_nothing():
    boxes = []
    for re_update in (False, True):
        motion = ObservedMotion(re_update=re_update)
        motion.add(np.array([[0.0, 0, 20, 20]]))
        for k in range(1, 6):
            motion.predict(FRAME)
            motion.update(np.array([0]), np.array([[5.0 * k, 0, 5 * k + 20, 20]]))
        boxes.append(motion.boxes)
    assert np.array_equal(*boxes)


def test_re_update_takes_a_limited_number_of_steps():
    motion = ObservedMotion()
    motion.add(np.array([[0.0, 0, 20, 20]]))
    for _ in range(10 * MOST_STEPS):
        motion.predict(FRAME)
    steps = []
    predict = motion._predict
    motion._predict = lambda rows, dt: (steps.append(1), predict(rows, dt))
    motion.update(np.array([0]), np.array([[50.0, 0, 70, 20]]))
    assert len(steps) == MOST_STEPS


@pytest.mark.parametrize(("recovery_iou", "ids"), [(0.3, [1]), (1.0, [0])])
def test_oc_sort_recovers_an_object_that_stopped_at_its_last_box(recovery_iou, ids):
    tracker = OcSortTracker(recovery_iou=recovery_iou)
    run(tracker, walk(8, step=10))
    for k in range(8, 12):
        tracker.update(Detections.empty(), time=k * FRAME)
    stopped = walk(8, step=10)[-1]
    assert tracker.update(stopped, time=12 * FRAME).ids.tolist() == ids


@pytest.mark.parametrize("name", REAL)
def test_a_restored_tracker_goes_on_like_the_original(name):
    generator = np.random.default_rng(5)
    frames = []
    for k in range(24):
        rows = [
            (
                60 + 3 * k + 40 * n,
                50 + n * k + generator.normal(),
                22,
                20,
                generator.random(),
                n % 2,
            )
            for n in range(5)
        ]
        frames.append(found(*[row for row in rows if generator.random() > 0.25]))
    first = TRACKERS[name]()
    run(first, frames[:12])
    second = TRACKERS[name]()
    second.load_state_dict(first.state_dict())
    for k, frame in enumerate(frames[12:], 12):
        a, b = (tracker.update(frame, time=k * FRAME).ids for tracker in (first, second))
        assert np.array_equal(a, b)
        assert np.array_equal(first.expected()[0], second.expected()[0])


def test_a_state_of_a_filter_without_observations_is_restored():
    """As older versions saved it."""
    old, new = ConstantVelocity(), ObservedMotion()
    box = np.array([[0.0, 0, 20, 20]])
    old.add(box)
    new.load_state_dict({name: array.copy() for name, array in old.state_dict().items()})
    for motion in (old, new):
        motion.predict(FRAME)
        motion.update(np.array([0]), box + 5)
    assert np.array_equal(old.boxes, new.boxes)


@pytest.mark.parametrize(("has_neighbour", "ids"), [(False, [1]), (True, [0, 0])])
def test_only_an_object_alone_is_matched_a_size_and_a_half_away(has_neighbour, ids):
    tracker = ByteTracker(max_widening=0.0)
    run(tracker, walk(4, step=0))
    jumped = [(130, 50, 20, 20, 0.9, 0)]
    if has_neighbour:
        jumped.append((140, 90, 20, 20, 0.8, 0))
    assert tracker.update(found(*jumped), time=4 * FRAME).ids.tolist() == ids


def test_a_saved_state_does_not_change_with_its_tracker():
    tracker = OcSortTracker()
    run(tracker, walk(4, step=3))
    state = tracker.state_dict()
    seen = state["motion"]["seen"].copy()
    tracker.update(found((400, 50, 20, 20, 0.9, 0)), time=4 * FRAME)
    tracker.update(walk(6, step=3)[5], time=5 * FRAME)
    assert np.array_equal(state["motion"]["seen"], seen)


@pytest.mark.parametrize("name", REAL)
def test_the_state_of_a_tracker_does_not_grow_with_the_video(name):
    tracker = TRACKERS[name]()

    def size() -> int:
        state = tracker.state_dict()
        arrays = [*state.values(), *state["motion"].values()]
        return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))

    run(tracker, walk(20, step=1))
    early = size()
    for k in range(20, 400):
        tracker.update(found((100 + k, 50, 20, 20, 0.9, 0)), time=k * FRAME)
    assert size() == early


# options


def test_options_reach_the_tracker():
    tracker = make_tracker("byte", min_score=0.4, options={"max_age": 2, "widening": 1.5})
    assert (tracker.options.min_score, tracker.options.max_age) == (0.4, 2.0)
    assert (tracker.options.widening, tracker.options.min_hits) == (1.5, 2)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("byte", {"max_aeg": 1.0}, "did you mean 'max_age'"),
        ("oc_sort", {"momentum": -1.0}, "momentum = -1.0 must be not negative"),
        ("sort", {"min_hits": 1.5}, "min_hits must be int"),
        ("iou", {"min_score": 0.2}, "score threshold"),
        ("none", {"max_age": 1.0}, "max_age is unknown"),
    ],
)
def test_unknown_options_and_values_are_refused(name, options, match):
    with pytest.raises(RnndetError, match=match):
        make_tracker(name, min_score=0.3, options=options)


@pytest.mark.parametrize("name", REAL)
def test_the_score_threshold_is_not_named_among_the_options(name):
    with pytest.raises(RnndetError) as error:
        make_tracker(name, min_score=0.3, options={"low_scor": 0.1})
    assert "min_score" not in str(error.value)


@pytest.mark.parametrize("name", REAL)
def test_acceleration_and_noise_are_options_of_the_filter(name):
    """The stored covariance after a prediction shows which noise the filter has."""
    if name == "iou":
        return
    spread = []
    for acceleration in (1.0, 20.0):
        tracker = TRACKERS[name](acceleration=acceleration, min_hits=1)
        run(tracker, walk(4, step=1))
        tracker.update(Detections.empty(), time=4 * FRAME)
        spread.append(tracker.state_dict()["motion"]["covariance"][0, 0, 0])
    assert spread[0] < spread[1]


def test_a_track_without_an_id_is_removed_after_its_share_of_max_age():
    ids = []
    for share in (0.25, 1.0):
        tracker = ByteTracker(max_age=0.4, tentative_share=share)
        box = found((50, 50, 20, 20, 0.9, 0))
        tracker.update(box, time=0.0)
        tracker.update(Detections.empty(), time=0.1)
        tracker.update(Detections.empty(), time=0.2)
        ids.append(tracker.update(box, time=0.24).ids.tolist())
    assert ids == [[0], [1]]
