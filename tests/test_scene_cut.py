"""Scene cuts are detected, and reset recurrent state and tracks."""

import cv2
import numpy as np
import pytest
from test_stream import Counter, frames

from rnndet.benchmarks.scene_cuts import lines_of, measure_cuts
from rnndet.data.corruption import plan as degradation
from rnndet.data.formats import read_set
from rnndet.data.rendered import render_set
from rnndet.errors import RnndetError
from rnndet.inference.stream import Stream, run_video
from rnndet.structures import Frame
from rnndet.tracking import ByteTracker
from rnndet.video.scene_cut import SceneCut, reduce_to_cells
from rnndet.video.synthetic.clip import SyntheticClip

SIZE_HW = (192, 256)


def clip(seed, *, length=12):
    return [
        frame.image for frame in SyntheticClip(seed, length=length, size_hw=SIZE_HW, degrade=False)
    ]


def cuts(images, **options):
    detector = SceneCut(**options)
    return [index for index, image in enumerate(images) if detector.update(image)]


def test_first_frame_of_a_new_scene_is_a_cut():
    assert cuts([*clip(1), *clip(2), *clip(3)]) == [12, 24]


@pytest.mark.parametrize("seed", range(4))
def test_clip_without_a_cut_has_none(seed):
    assert cuts(clip(seed, length=40)) == []


@pytest.mark.parametrize("kind", ["drop", "noise", "motion_blur", "defocus", "dark", "freeze"])
def test_corrupted_frames_are_no_cuts(kind):
    images = clip(1, length=40)
    degrader = degradation.Degrader(degradation.named_plan(kind, "clip", len(images)))
    shown = [degrader.apply(i, image) for i, image in enumerate(images)]
    assert any((a != b).any() for a, b in zip(shown, images, strict=True))
    assert cuts(shown) == []


def test_cut_behind_blank_frames_is_detected():
    black = np.zeros((*SIZE_HW, 3), np.uint8)
    assert cuts([*clip(1), black, black, *clip(2)]) == [14]


@pytest.mark.parametrize("size_hw", [(90, 70), (257, 300), (513, 643), (720, 1280)])
def test_cells_are_means_of_every_nth_pixel(size_hw):
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    step = max(1, min(size_hw) // 256)
    chosen = np.ascontiguousarray(image[::step, ::step])
    expected = cv2.resize(chosen, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    np.testing.assert_array_equal(reduce_to_cells(image), expected)
    np.testing.assert_array_equal(reduce_to_cells(image[..., ::-1]), expected[..., ::-1])


def test_fast_pan_is_a_single_cut_at_most():
    ramp = np.tile(np.linspace(0, 255, 128)[None, :, None], (96, 1, 3))
    still = [ramp.astype(np.uint8)] * 5
    pan = [np.roll(ramp, 12 * i, axis=1).astype(np.uint8) for i in range(1, 10)]
    assert cuts([*still, *pan], ratio=0.0) == list(range(5, 14))  # each differs by enough
    assert cuts([*still, *pan]) == [5]


@pytest.mark.parametrize("restart", [False, True])
def test_frames_before_a_restart_are_not_compared(restart):
    images = [*clip(1), *clip(2)]
    shown = [Frame(image, k, k / 25, restart=restart and k == 12) for k, image in enumerate(images)]
    found = [result.cut for result in run_video(Stream(Counter(), cuts=SceneCut()), shown)]
    assert found[12] is not restart


def test_frame_after_a_reset_is_not_a_cut():
    detector = SceneCut()
    detector.update(clip(1)[0])
    detector.reset()
    assert not detector.update(clip(2)[0])


class At:
    """Cuts at the given frames."""

    def __init__(self, *where):
        self.where = where
        self.reset()

    def reset(self):
        self.count = -1

    def update(self, image):
        self.count += 1
        return self.count in self.where


def test_recurrent_state_is_reset_at_a_cut():
    shown = frames(6)
    whole = list(run_video(Stream(Counter(), min_score=0.0, cuts=At(3)), shown))
    second = list(run_video(Stream(Counter(), min_score=0.0), shown[3:]))
    assert [r.cut for r in whole] == [False, False, False, True, False, False]
    for a, b in zip(whole[3:], second, strict=True):
        assert a.detections.scores.tolist() == b.detections.scores.tolist()


def test_ids_after_a_cut_are_new():
    stream = Stream(Counter(), ByteTracker(), cuts=At(4))
    found = [result.detections.ids.tolist() for result in run_video(stream, frames(8))]
    before = {track for ids in found[:4] for track in ids if track}
    after = {track for ids in found[4:] for track in ids if track}
    assert before and after and min(after) > max(before)


def test_joined_videos_are_measured(tmp_path):
    render_set(tmp_path, clips=3, length=8, first_seed=1, split="val")
    report = measure_cuts(read_set("coco_vid", tmp_path, "val"))
    assert report["frames"] == 24
    assert sum(report["joints"].values()) == 2
    assert report["seen"] == report["joints"]
    assert (report["delay"], report["false"]) == (0, [])
    assert "2 of 2 detected" in lines_of(report)[0]


def test_one_video_has_no_joint(tmp_path):
    render_set(tmp_path, clips=1, length=2, first_seed=1, split="val")
    with pytest.raises(RnndetError, match="at least two videos"):
        measure_cuts(read_set("coco_vid", tmp_path, "val"))
