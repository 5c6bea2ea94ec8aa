"""Seq-NMS and smoothing by tracks, on hand-computed videos."""

import numpy as np
import pytest

from rnndet.evaluation.records import EvaluatedFrame, EvaluatedVideo
from rnndet.evaluation.rescoring import RESCORERS, seq_nms, track_smooth


def video(*frames) -> EvaluatedVideo:
    """Frames of (x, score, label): boxes of 40 x 40 pixels with left edge x."""
    made = []
    for index, rows in enumerate(frames):
        rows = sorted(rows, key=lambda row: -row[1])
        made.append(
            EvaluatedFrame(
                index=index,
                boxes=np.array([[x, 0, x + 40, 40] for x, _, _ in rows], np.float32).reshape(-1, 4),
                scores=np.array([score for _, score, _ in rows], np.float32),
                labels=np.array([label for _, _, label in rows], np.int32),
                ids=np.zeros(len(rows), np.int64),
                target_boxes=np.zeros((0, 4), np.float32),
                target_labels=np.zeros(0, np.int32),
                target_ids=np.zeros(0, np.int64),
                target_ignore=np.zeros(0, bool),
            )
        )
    return EvaluatedVideo("v", 25.0, (200, 400), tuple(made))


def scores(video: EvaluatedVideo) -> list[list[float]]:
    return [[round(float(s), 3) for s in frame.scores] for frame in video.frames]


def test_seq_nms_gives_a_chain_the_mean_of_its_scores():
    # 0 -> 4 -> 8: intersections 36 x 40, IoU 36/44 = .82, so one chain: (.9 + .3 + .6) / 3 = .6
    out = seq_nms(video([(0, 0.9, 0)], [(4, 0.3, 0)], [(8, 0.6, 0)]))
    assert scores(out) == [[0.6], [0.6], [0.6]]


def test_seq_nms_can_give_the_largest_score():
    out = seq_nms(video([(0, 0.9, 0)], [(4, 0.3, 0)]), rescore="max")
    assert scores(out) == [[0.9], [0.9]]


def test_seq_nms_takes_the_chain_with_the_largest_sum():
    # Chains from 0 to 16 (IoU 24/56 = .43) do not link; 0 -> 8 links (32/48 = .67) and so does
    # 16 -> 8. Sums: .5 + .4 = .9 and .6 + .4 = 1.0, so 16 -> 8 is the chain and gets (.6 + .4) / 2.
    # The box at 0 overlaps the chosen one at 16 by .43 > .3: it is removed.
    out = seq_nms(video([(0, 0.5, 0), (16, 0.6, 0)], [(8, 0.4, 0)]))
    assert scores(out) == [[0.5], [0.5]]
    assert out.frames[0].boxes[0, 0] == 16


def test_seq_nms_does_not_link_classes():
    out = seq_nms(video([(0, 0.9, 0)], [(0, 0.3, 1)]))
    assert scores(out) == [[0.9], [0.3]]


def test_seq_nms_does_not_link_over_a_gap():
    out = seq_nms(video([(0, 0.9, 0)], [], [(0, 0.3, 0)]))
    assert scores(out) == [[0.9], [], [0.3]]


def test_seq_nms_leaves_small_scores_as_they_are():
    out = seq_nms(video([(0, 0.9, 0)], [(0, 0.04, 0)]))
    assert scores(out) == [[0.9], [0.04]]


def test_smoothing_gives_the_running_mean_of_the_track():
    # the id comes with the second hit: .8; then .4 * .5 + .6 * .8 = .68
    out = track_smooth(video([(0, 0.8, 0)], [(2, 0.8, 0)], [(4, 0.5, 0)]))
    assert scores(out) == [[0.8], [0.8], [0.68]]


def test_smoothing_gives_the_class_with_most_votes():
    out = track_smooth(video([(0, 0.8, 0)], [(2, 0.8, 0)], [(4, 0.8, 0)], [(6, 0.6, 1)]))
    assert out.frames[3].labels.tolist() == [0]


def test_missed_track_is_kept_for_the_requested_number_of_frames():
    seen = [[(4 * t, 0.8, 0)] for t in range(6)]
    out = track_smooth(video(*seen, [], [], []), coast=2, fade=0.5)
    assert scores(out)[6:] == [[0.4], [0.2], []]


def test_missed_track_is_kept_at_its_predicted_place():
    seen = [[(4 * t, 0.8, 0)] for t in range(12)]
    out = track_smooth(video(*seen, []))
    assert out.frames[12].boxes[0, 0] == pytest.approx(48, abs=3)


def test_smoothing_does_not_use_later_frames():
    first = [[(4 * t, 0.8 - 0.05 * t, 0)] for t in range(8)]
    short, whole = track_smooth(video(*first[:5])), track_smooth(video(*first))
    assert scores(whole)[:5] == scores(short)


@pytest.mark.parametrize("name", sorted(RESCORERS))
def test_video_without_detections_stays_empty(name):
    assert scores(RESCORERS[name](video([], []))) == [[], []]


@pytest.mark.parametrize("name", sorted(RESCORERS))
def test_scores_stay_in_descending_order(name):
    random = np.random.default_rng(0)
    frames = [
        [(float(random.uniform(0, 300)), float(random.uniform(0.05, 1)), int(random.integers(2)))
         for _ in range(6)] for _ in range(8)
    ]  # fmt: skip
    out = RESCORERS[name](video(*frames))
    assert all((np.diff(frame.scores) <= 0).all() for frame in out.frames)
