"""Synthetic clips are reproducible, and their ground truth matches their images."""

import numpy as np
import pytest
import torch

from rnndet.structures import Target
from rnndet.video.sources.base import Source
from rnndet.video.sources.excerpt import Excerpt
from rnndet.video.synthetic.clip import SyntheticClip
from rnndet.video.synthetic.objects import MODELS, Pose, draw_sprite

SMALL = {"length": 24, "size_hw": (128, 160)}


def same_target(a: Target, b: Target) -> bool:
    fields = ("boxes", "labels", "ids", "ignore")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in fields)


def test_same_seed_gives_same_bytes_in_any_order():
    first, second = SyntheticClip(5, **SMALL), SyntheticClip(5, **SMALL)
    backwards = {k: second.frame(k) for k in reversed(range(24))}
    for frame in first:
        assert np.array_equal(frame.image, backwards[frame.index].image)
        assert same_target(first.target(frame.index), second.target(frame.index))


def test_other_seed_gives_other_clip():
    assert not np.array_equal(
        SyntheticClip(1, **SMALL).frame(0).image, SyntheticClip(2, **SMALL).frame(0).image
    )


def test_info_frames_and_times_agree():
    clip = SyntheticClip(0, length=3, size_hw=(96, 130), fps=10)
    frames = list(clip)
    assert len(frames) == len(clip) == clip.info.length == 3
    assert (clip.info.height, clip.info.width, clip.info.fps) == (96, 130, 10)
    assert all(f.image.shape == (96, 130, 3) and f.image.dtype == np.uint8 for f in frames)
    assert [f.time for f in frames] == pytest.approx([0, 0.1, 0.2])
    assert clip.classes == ("airplane", "bird", "drone", "helicopter")


def test_clip_is_a_source_that_loses_no_frames():
    with SyntheticClip(0, length=2, size_hw=(64, 64)) as clip:
        assert isinstance(clip, Source)
        assert [frame.index for frame in Excerpt(clip, start=0.01)] == [1]
        assert (clip.counts, clip.notes, clip.is_live) == (None, (), False)


def test_outside_the_clip_is_an_index_error():
    clip = SyntheticClip(0, length=1, size_hw=(64, 64))
    for index in (-1, 1):
        with pytest.raises(IndexError):
            clip.target(index)
        with pytest.raises(IndexError):
            clip.frame(index)


def test_boxes_lie_inside_the_frame_with_ids_from_one():
    for seed in range(6):
        clip = SyntheticClip(seed, **SMALL)
        for index in range(0, 24, 6):
            target = clip.target(index)
            boxes = target.boxes
            assert boxes.dtype == torch.float32
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, 2] <= 160).all()
            assert (boxes[:, 3] <= 128).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert target.ids is not None
            assert set(target.ids.tolist()) <= {1, 2, 3, 4}
            assert ((target.labels >= 0) & (target.labels < 4)).all()


def test_every_clip_has_objects_and_all_kinds_occur():
    labels = set()
    for seed in range(10):
        clip = SyntheticClip(seed, **SMALL)
        targets = [clip.target(index) for index in range(0, 24, 3)]
        assert any(len(target) for target in targets)
        labels |= {label for target in targets for label in target.labels.tolist()}
    assert labels == {0, 1, 2, 3}


def test_boxes_cover_the_changed_pixels():
    checked = 0
    for seed in range(12):
        clip = SyntheticClip(seed, **SMALL, degrade=False)
        if any(flyer.contrail for flyer in clip._flyers):
            continue  # a contrail is not part of the object
        for index in (6, 12, 18):
            target = clip.target(index)
            objects, empty = clip.frame(index).image, clip.background(index).image
            changed = np.abs(objects.astype(int) - empty).max(-1) > 45
            covered = np.zeros_like(changed)
            for x1, y1, x2, y2 in target.boxes.int().tolist():
                covered[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
            assert changed[~covered].sum() <= 0.03 * changed.sum()
            checked += int(changed.sum() > 20)
    assert checked > 10


def test_identity_keeps_its_class_and_moves_smoothly():
    clip = SyntheticClip(3, **SMALL)
    last: dict[int, tuple[int, torch.Tensor]] = {}
    for index in range(24):
        target = clip.target(index)
        kept = target[~target.ignore]
        for box, label, number in zip(
            kept.boxes, kept.labels.tolist(), kept.ids.tolist(), strict=True
        ):
            centre = (box[:2] + box[2:]) / 2
            if number in last:
                assert last[number][0] == label
                assert (centre - last[number][1]).abs().max() < 40
            last[number] = (label, centre)


def test_bird_flaps():
    boxes = [MODELS["bird"](np.full(4, 0.5), phase) for phase in (0.0, 1.6)]
    tips = [parts[-1].points for parts in boxes]
    assert np.abs(tips[0] - tips[1]).max() > 0.1


def test_degraded_runs_are_blurred_and_keep_their_target():
    for seed in range(3):
        bad = SyntheticClip(seed, length=40, size_hw=(128, 160))
        good = SyntheticClip(seed, length=40, size_hw=(128, 160), degrade=False)
        runs = [index for index in range(40) if bad.degraded(index)]
        assert 4 <= len(runs) <= 12
        assert runs == list(range(runs[0], runs[-1] + 1))
        middle = runs[len(runs) // 2]
        assert not np.array_equal(bad.frame(middle).image, good.frame(middle).image)
        assert same_target(bad.target(middle), good.target(middle))
        clear = next(index for index in range(40) if not bad.degraded(index))
        assert np.array_equal(bad.frame(clear).image, good.frame(clear).image)
        assert not any(good.degraded(index) for index in range(40))


def test_mostly_hidden_objects_are_ignored():
    seen = []
    for seed in range(20):
        clip = SyntheticClip(seed, **SMALL)
        for index in range(0, 24, 8):
            for _, placed in clip._place(index):
                seen.append(float(placed.visible.sum() / placed.full_alpha))
    assert min(seen) < 0.25 < max(seen)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_sprite_has_about_the_requested_length_and_is_centred(kind):
    pose = Pose(yaw=0.3, pitch=0, roll=0, elevation=0.6)
    sprite = draw_sprite(
        MODELS[kind](np.full(4, 0.5), 1.0), pose, size_px=60, centre_xy=(100.5, 80.25)
    )
    rows, columns = (np.flatnonzero((sprite.alpha > 0.12).any(axis)) for axis in (1, 0))
    assert 30 <= max(np.ptp(rows), np.ptp(columns)) <= 72
    assert abs(sprite.x + columns.mean() - 100.5) < 15
    assert abs(sprite.y + rows.mean() - 80.25) < 15
    assert 0 <= sprite.alpha.min() <= sprite.alpha.max() <= 1.0001


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="expected length"):
        SyntheticClip(0, length=0)
    with pytest.raises(ValueError, match="expected length"):
        SyntheticClip(0, size_hw=(10, 100))
