"""The model runs on key frames, and its boxes are propagated to the frames in between."""

import cv2
import numpy as np
import pytest

from conftest import detections
from rnndet.errors import RnndetError
from rnndet.video.key_frames import MAX_BOXES, MIN_SCORE, KeyFrames, choose_key_frames, match_boxes

HW = (120, 160)
BOX = [40, 30, 70, 60]


def scene(dx: float = 0, dy: float = 0) -> np.ndarray:
    """A blurred noise image, (120, 160, 3) uint8, moved by dx, dy."""
    noise = np.random.default_rng(0).integers(0, 255, HW, dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    moved = cv2.warpAffine(smooth, np.float32([[1, 0, dx], [0, 1, dy]]), HW[::-1])
    return np.repeat(moved[..., None], 3, axis=2)


def blank() -> np.ndarray:
    return np.full((*HW, 3), 20, np.uint8)


def started(every: int = 10, *, boxes=(BOX,), scores=None, lost: float = 0.0) -> KeyFrames:
    """`KeyFrames` after the first key frame, `scene()`."""
    keys = KeyFrames(every, lost=lost)
    assert keys.between(scene(), size_hw=HW) is None
    scores = [0.9] * len(boxes) if scores is None else scores
    keys.keep(scene(), detections(boxes, scores, [1] * len(boxes)))
    return keys


def test_box_moves_with_its_content():
    keys = started()
    for k in range(1, 4):
        found = keys.between(scene(3 * k, -2 * k), size_hw=HW)
    assert np.allclose(found.boxes, [[49, 24, 79, 54]], atol=0.3)


def test_motion_adds_up_beyond_the_reach_of_a_single_frame():
    keys = started()
    for k in range(1, 6):
        found = keys.between(scene(6 * k), size_hw=HW)
    assert np.allclose(found.boxes, [[70, 30, 100, 60]], atol=0.5)


def test_large_box_is_propagated():
    keys = started(boxes=[[10, 5, 140, 110]])
    found = keys.between(scene(4, 3), size_hw=HW)
    assert np.allclose(found.boxes, [[14, 8, 144, 113]], atol=1)


@pytest.mark.parametrize("box", [[20, 10, 140, 110], [30, 20, 110, 80], [10, 50, 150, 60]])
def test_large_box_stays_in_a_still_image(box):
    found = started(boxes=[box]).between(scene(), size_hw=HW)
    assert np.allclose(found.boxes, [box], atol=0.05)


@pytest.mark.parametrize("box", [[0, 0, 640, 9], [10, 100, 630, 102], [0, 0, 9, 360]])
def test_thin_box_is_propagated(box):
    wide = cv2.resize(scene(), (640, 360))
    keys = KeyFrames(5)
    keys.keep(wide, detections([box], [0.9], [0]))
    assert np.allclose(keys.between(wide, size_hw=(360, 640)).boxes, [box], atol=0.1)


def test_search_is_wider_after_lost_frames():
    keys = started()
    found = keys.between(scene(20, -9), size_hw=HW, gap=4)
    assert np.allclose(found.boxes, [[60, 21, 90, 51]], atol=0.5)
    found = keys.between(scene(24, -10.8), size_hw=HW)  # and the motion is per frame
    assert np.allclose(found.boxes, [[64, 19.2, 94, 49.2]], atol=0.5)


def test_motion_continues_through_lost_frames():
    """By 60 pixels, nearly twice the search radius around the expected position."""
    keys = started(20)
    keys.between(scene(6), size_hw=HW)
    found = keys.between(scene(66), size_hw=HW, gap=9)
    assert np.allclose(found.boxes, [[106, 30, 136, 60]], atol=0.5)


def test_box_that_leaves_the_image_is_clipped_and_then_removed():
    keys = KeyFrames(20)
    keys.keep(scene(), detections([[10, 40, 40, 70]], [0.9], [0]))
    found = [keys.between(scene(-6 * k), size_hw=HW) for k in range(1, 9)]
    assert [len(boxes) for boxes in found] == [1, 1, 1, 1, 1, 1, 0, 0]
    assert np.allclose(found[3].boxes, [[0, 40, 16, 70]], atol=0.5)


def test_scores_and_classes_are_those_of_the_key_frame():
    found = started(scores=[0.7]).between(scene(1, 1), size_hw=HW)
    assert found.scores.tolist() == [np.float32(0.7)]
    assert found.labels.tolist() == [1]
    assert found.ids is None


def test_motion_is_in_pixels_of_the_frame():
    keys = KeyFrames(5)
    whole = (HW[0] * 3, HW[1] * 2)
    keys.keep(scene(), detections([[80, 90, 140, 180]], [0.9], [0]))
    found = keys.between(scene(3, 2), size_hw=whole)
    assert np.allclose(found.boxes, [[86, 96, 146, 186]], atol=0.9)


def test_every_third_frame_is_a_key_frame():
    keys, seen = KeyFrames(3), []
    for k in range(8):
        found = keys.between(scene(k), size_hw=HW)
        if found is None:
            keys.keep(scene(k), detections([BOX], [0.9], [0]))
        seen.append(keys.is_between)
    assert seen == [False, True, True, False, True, True, False, True]


def test_the_frame_after_a_reset_is_a_key_frame():
    keys = started()
    keys.reset()
    assert keys.between(scene(1), size_hw=HW) is None


def test_unmatched_box_stays():
    found = started().between(blank(), size_hw=HW)
    assert found.boxes.tolist() == [BOX]


def test_box_is_matched_again_after_a_bad_frame():
    keys = started()
    keys.between(blank(), size_hw=HW)
    found = keys.between(scene(4, 3), size_hw=HW)
    assert np.allclose(found.boxes, [[44, 33, 74, 63]], atol=0.3)


def test_a_frame_in_which_boxes_are_lost_is_a_key_frame():
    keys = started(lost=0.5)
    assert keys.between(scene(1), size_hw=HW) is not None
    assert keys.between(blank(), size_hw=HW) is None


def test_the_share_that_is_lost_is_weighted_by_score():
    plain = scene()
    plain[60:] = 100  # nothing to match in the lower half
    boxes = [BOX, [40, 80, 70, 110]]
    keys = KeyFrames(10, lost=0.6)
    keys.keep(plain, detections(boxes, [0.9, 0.3], [0, 0]))
    assert keys.between(plain, size_hw=HW) is not None
    keys.keep(plain, detections(boxes[::-1], [0.9, 0.3], [0, 0]))
    assert keys.between(plain, size_hw=HW) is None


def test_boxes_of_low_score_stay():
    keys = started(boxes=[BOX, BOX], scores=[0.9, MIN_SCORE / 2])
    found = keys.between(scene(3), size_hw=HW)
    assert found.boxes[1].tolist() == BOX


def test_number_of_propagated_boxes_is_limited():
    keys = started(boxes=[BOX] * (MAX_BOXES + 1))
    found = keys.between(scene(3), size_hw=HW)
    assert found.boxes[MAX_BOXES - 1, 0] > BOX[0] + 2
    assert found.boxes[MAX_BOXES].tolist() == BOX


def test_video_without_objects_has_key_frames():
    keys = started(2, boxes=(), lost=0.5)
    assert len(keys.between(scene(1), size_hw=HW)) == 0
    assert keys.between(scene(2), size_hw=HW) is None


def test_given_detections_are_not_modified():
    given = detections([BOX], [0.9], [0])
    keys = KeyFrames(5)
    keys.keep(scene(), given)
    keys.between(scene(3), size_hw=HW)
    assert given.boxes.tolist() == [BOX]


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_restored_key_frames_continue(frames):
    first, second = KeyFrames(4), KeyFrames(4)
    if frames:
        first = started(4)
    for k in range(1, frames):
        first.between(scene(k), size_hw=HW)
    second.load_state_dict(first.state_dict())
    a, b = (keys.between(scene(frames), size_hw=HW) for keys in (first, second))
    assert (a is None) == (b is None) == (frames == 0)
    assert a is None or np.array_equal(a.boxes, b.boxes)


def test_boxes_outside_the_image_are_not_matched():
    boxes = np.array([[-90, -90, -50, -50]], np.float32)
    expected = np.array([[1, 2]], np.float32)
    offsets, is_found = match_boxes(scene()[..., 0], scene(2)[..., 0], boxes, expected)
    assert not is_found.any()
    assert np.array_equal(offsets, expected)


@pytest.mark.parametrize(("every", "lost"), [(0, 0.0), (5, 1.5), (5, -0.1), (1, 0.5)])
def test_settings_out_of_range_are_refused(every, lost):
    with pytest.raises(RnndetError, match="key frames"):
        choose_key_frames(every, lost)


def test_no_policy_is_needed_where_every_frame_is_a_key_frame():
    assert choose_key_frames(1) is None
