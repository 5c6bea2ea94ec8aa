"""Training clips: ClipDataset."""

from dataclasses import replace

import pytest
import torch

from conftest import SIZE_HW, write_coco_vid
from rnndet.config import AugmentConfig, ClipConfig
from rnndet.data.clips.dataset import ClipDataset, WindowSampler, collate
from rnndet.data.formats import read_set


def dataset(root, *, count=20, keep_clean=False, **augment):
    augment = {"crop": (64, 64), "corrupt": 0.0, "colour": 0.0} | augment
    return ClipDataset(
        [(read_set("coco_vid", root, "train"), 1.0, None)],
        size_hw=SIZE_HW,
        clip=ClipConfig(length=3, stride_max=2),
        augment=AugmentConfig(**augment),
        rows=1,
        steps=count,
        seed=1,
        keep_clean=keep_clean,
    )


def test_clip_has_the_configured_size(coco_vid_root):
    clip = dataset(coco_vid_root)[0]
    assert clip.frames.shape == (3, 3, 64, 64)
    assert clip.frames.dtype == torch.uint8
    assert len(clip.targets) == 3


def test_item_depends_on_its_number_alone(coco_vid_root):
    clips = dataset(coco_vid_root, corrupt=1.0, colour=1.0, mosaic=0.5)
    assert torch.equal(clips[3].frames, clips[3].frames)
    assert not torch.equal(clips[3].frames, clips[4].frames)


def test_boxes_lie_on_the_object_after_augmentation(coco_vid_root):
    """The object is the only red thing, and it fills its box."""
    clips = dataset(coco_vid_root, mosaic=0.5)
    for index in range(10):
        clip = clips[index]
        for frame, target in zip(clip.frames, clip.targets, strict=True):
            red = (frame[0].int() - frame[2].int()) > 100
            for box, ignore in zip(target.boxes.round().int().tolist(), target.ignore, strict=True):
                if not ignore:
                    x1, y1, x2, y2 = box
                    assert red[y1:y2, x1:x2].float().mean() > 0.75


def test_zoom_is_relative_to_the_scale_of_inference(coco_vid_root):
    """Frames of the model's input size stay as large as they are; objects are 16x16 and 24x10."""
    clips = dataset(coco_vid_root, zoom_min=1.0, zoom_max=1.0, on_object=0.0)
    boxes = torch.cat(
        [target.boxes[~target.ignore] for i in range(10) for target in clips[i].targets]
    )
    sizes = (boxes[:, 2:] - boxes[:, :2]).tolist()
    assert [16, 16] in sizes and [24, 10] in sizes


def test_clip_classes_selects_the_share_of_the_classes(coco_vid_root):
    whole = read_set("coco_vid", coco_vid_root, "train")
    rare = replace(whole.videos[1], frames=whole.videos[1].frames[:1])
    counts = {}
    for classes in ("even", "natural"):
        clips = ClipDataset(
            [(replace(whole, videos=(whole.videos[0], rare)), 1.0, None)],
            size_hw=SIZE_HW,
            clip=ClipConfig(length=1, classes=classes),
            augment=AugmentConfig(crop=(64, 64)),
            rows=1,
            steps=60,
        )
        counts[classes] = sum(clips[i].place.startswith("v1") for i in range(60))
    assert counts["natural"] < 16 < 20 < counts["even"]  # 1 in 7, 1 in 2


def test_only_the_configured_kinds_of_corruption_occur(coco_vid_root):
    clips = dataset(coco_vid_root, keep_clean=True, corrupt=1.0, corrupt_share=0.8, kinds=("drop",))
    corrupted = [
        frame
        for i in range(10)
        for frame, clean in zip(clips[i].frames, clips[i].clean, strict=True)
        if not torch.equal(frame, clean)
    ]
    assert len(corrupted) > 10
    assert all(frame.float().std() < 10 for frame in corrupted)


def test_corruption_keeps_the_target(coco_vid_root):
    clean = dataset(coco_vid_root)[0]
    corrupted = dataset(coco_vid_root, corrupt=1.0, corrupt_share=0.8)[0]
    assert torch.equal(clean.targets[0].boxes, corrupted.targets[0].boxes)
    assert not torch.equal(clean.frames, corrupted.frames)


@pytest.mark.parametrize(("reverse", "motion"), [(0.0, {6, 9, 12}), (1.0, {-6, -9, -12})])
def test_clips_take_every_nth_frame_forwards_or_in_reverse(coco_vid_root, reverse, motion):
    """n is drawn from stride_min to stride_max. The object moves 3 px to the right per frame."""
    clips = ClipDataset(
        [(read_set("coco_vid", coco_vid_root, "train"), 1.0, None)],
        size_hw=SIZE_HW,
        clip=ClipConfig(length=2, stride_min=2, stride_max=4),
        augment=AugmentConfig(crop=SIZE_HW, zoom_min=1.0, zoom_max=1.0, flip=0.0, reverse=reverse),
        rows=1,
        steps=40,
    )
    pairs = [clips[item].targets for item in range(len(clips))]
    assert {float(after.boxes[0, 0] - before.boxes[0, 0]) for before, after in pairs} == motion


def test_batch_is_time_first(coco_vid_root):
    clips = dataset(coco_vid_root)
    batch = collate([clips[0], clips[1]])
    assert batch.frames.shape == (3, 2, 3, 64, 64)
    assert torch.equal(batch.frames[2, 1], clips[1].frames[2])
    assert (len(batch.targets), len(batch.targets[0])) == (3, 2)


def rows_of(root, *, length, windows, rows=2, streamed=1.0, steps=9, **augment):
    clip = ClipConfig(length=length, windows=windows, stride_max=1, streamed=streamed)
    augment = AugmentConfig(crop=(64, 64), **augment)
    source = (read_set("coco_vid", root, "train"), 1.0, None)
    return ClipDataset(
        [source], size_hw=SIZE_HW, clip=clip, augment=augment, rows=rows, steps=steps
    )


def test_windows_of_a_streamed_row_are_consecutive(coco_vid_root):
    """Also with freezes, which may repeat a frame of an earlier window."""
    changes = {"corrupt": 1.0, "corrupt_share": 0.7, "kinds": ("freeze", "noise"), "mosaic": 0.5}
    whole = rows_of(coco_vid_root, length=6, windows=1, rows=1, **changes)
    cut = rows_of(coco_vid_root, length=2, windows=3, rows=1, **changes)
    for clip in range(3):
        parts = torch.cat([cut[3 * clip + part].frames for part in range(3)])
        assert torch.equal(parts, whole[clip].frames)


def test_rows_begin_their_clips_at_different_steps(coco_vid_root):
    cut = rows_of(coco_vid_root, length=2, windows=3, rows=2)
    begins = [[cut[2 * step + row].begins for step in range(5)] for row in range(2)]
    assert begins == [[True, False, False, True, False], [True, False, True, False, False]]


def test_random_rows_begin_at_each_step(coco_vid_root):
    cut = rows_of(coco_vid_root, length=2, windows=3, rows=2, streamed=0.5)
    assert [cut[2 * step].begins for step in range(4)] == [True] * 4
    assert [cut[2 * step + 1].begins for step in range(4)] == [True, False, True, False]


def test_sampler_yields_the_rows_of_one_process_at_every_step(coco_vid_root):
    data = rows_of(coco_vid_root, length=2, windows=1, rows=4, steps=3)
    second = WindowSampler(data, range(2, 4), batch=1, first_step=1)
    assert list(second) == [[6], [7], [10], [11]]
    assert len(second) == 4


def test_keep_clean_keeps_the_frames_before_corruption(coco_vid_root):
    clean = dataset(coco_vid_root)[0].frames
    corrupted = dataset(coco_vid_root, keep_clean=True, corrupt=1.0, corrupt_share=0.8)[0]
    assert torch.equal(corrupted.clean, clean)
    assert not torch.equal(corrupted.frames, clean)


def positions(clip):
    """The left edge of the first box in each frame."""
    return [target.boxes[0, 0].item() for target in clip.targets]


def test_frames_of_a_still_clip_are_crops_of_one_frame(coco_vid_root, monkeypatch):
    clips = dataset(coco_vid_root, still=1.0)
    loaded = []
    load = clips.store.load
    monkeypatch.setattr(
        clips.store, "load", lambda *a, **k: loaded.append([r.index for r in a[1]]) or load(*a, **k)
    )
    for index in range(10):
        clips[index]
    assert all(len(set(indices)) == 1 for indices in loaded)


def test_crop_of_a_still_clip_moves(coco_vid_root):
    clips = dataset(coco_vid_root, still=1.0)
    assert any(len(set(positions(clips[index]))) > 1 for index in range(10))


def test_windows_of_a_still_clip_continue_its_movement(coco_vid_root):
    """A streamed clip cut into windows shows the same frames as one long window."""
    options = {"crop": (64, 64), "corrupt": 0.0, "colour": 0.0, "still": 1.0}

    def windows(length, count):
        clips = ClipDataset(
            [(read_set("coco_vid", coco_vid_root, "train"), 1.0, None)],
            size_hw=SIZE_HW,
            clip=ClipConfig(length=length, windows=count),
            augment=AugmentConfig(**options),
            rows=1,
            steps=count,
            seed=1,
        )
        return torch.cat([clips[i].frames for i in range(count)])

    assert torch.equal(windows(6, 1), windows(2, 3))


def test_video_of_one_frame_is_seen_by_a_moving_crop(tmp_path):
    write_coco_vid(tmp_path, videos=1, length=1)
    clips = dataset(tmp_path)
    assert any(len(set(positions(clips[index]))) > 1 for index in range(10))
