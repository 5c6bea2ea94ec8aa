"""Augmentation of clips."""

from dataclasses import replace

import pytest
import torch

from rnndet.data.clips import transforms
from rnndet.data.clips.transforms import Clip, Region
from rnndet.structures import Target


def one_box(box, *, label=0, track=1):
    return Target(
        torch.tensor([box], dtype=torch.float32),
        torch.tensor([label]),
        torch.tensor([track]),
        torch.tensor([False]),
    )


def clip_of(box, *, length=2, size_hw=(40, 60)):
    frames = torch.randint(0, 256, (length, 3, *size_hw), dtype=torch.uint8)
    return Clip(frames, [one_box(box) for _ in range(length)])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_inference_scale_follows_the_tighter_side():
    assert transforms.inference_scale((384, 480), (512, 640)) == 0.75
    assert transforms.inference_scale((384, 480), (360, 640)) == 0.75  # 480/640 < 384/360


def test_crop_moves_and_scales_boxes():
    clip = transforms.crop_resize(clip_of([20, 10, 30, 20]), Region(10, 5, 30, 20), out_hw=(40, 60))
    assert clip.frames.shape == (2, 3, 40, 60)
    assert clip.targets[0].boxes.tolist() == [[20.0, 10.0, 40.0, 30.0]]


def test_crop_without_scaling_copies_pixels():
    clip = clip_of([20, 10, 30, 20])
    cut = transforms.crop_resize(clip, Region(4, 6, 16, 8), out_hw=(8, 16))
    assert torch.equal(cut.frames, clip.frames[..., 6:14, 4:20])


def test_crop_beyond_the_frame_repeats_the_edge():
    clip = clip_of([0, 0, 10, 10])
    cut = transforms.crop_resize(clip, Region(-5, 0, 20, 10), out_hw=(10, 20))
    assert torch.equal(cut.frames[..., :5], clip.frames[..., :10, :1].expand(-1, -1, -1, 5))
    assert cut.targets[0].boxes.tolist() == [[5.0, 0.0, 15.0, 10.0]]


def test_mostly_cut_object_is_ignored():
    clip = transforms.crop_resize(clip_of([0, 0, 10, 10]), Region(8, 0, 20, 20), out_hw=(20, 20))
    assert clip.targets[0].ignore.tolist() == [True]


def test_ignored_object_inside_the_crop_stays_ignored():
    clip = clip_of([4, 4, 10, 10])
    ignored = replace(clip.targets[0], ignore=torch.tensor([True]))
    cut = transforms.crop_resize(
        Clip(clip.frames, [ignored, clip.targets[1]]), Region(0, 0, 20, 20), out_hw=(20, 20)
    )
    assert [target.ignore.tolist() for target in cut.targets] == [[True], [False]]


def test_object_outside_the_crop_is_removed():
    clip = transforms.crop_resize(clip_of([0, 0, 10, 10]), Region(20, 0, 20, 20), out_hw=(20, 20))
    assert len(clip.targets[0]) == 0


def test_unlabelled_frames_stay_unlabelled():
    clip = Clip(torch.zeros(1, 3, 20, 20, dtype=torch.uint8), [None])
    assert transforms.crop_resize(clip, Region(0, 0, 10, 10), out_hw=(10, 10)).targets == [None]
    assert transforms.flip(clip).targets == [None]


def test_flip_twice_changes_nothing():
    clip = clip_of([20, 10, 33, 20])
    twice = transforms.flip(transforms.flip(clip))
    assert torch.equal(twice.frames, clip.frames)
    assert torch.equal(twice.targets[0].boxes, clip.targets[0].boxes)


def test_flip_mirrors_boxes():
    assert transforms.flip(clip_of([0, 10, 15, 20])).targets[0].boxes.tolist() == [[45, 10, 60, 20]]


def test_colour_changes_all_frames_alike():
    frames = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8).expand(3, -1, -1, -1)
    clip = transforms.colour(Clip(frames, [None] * 3), generator())
    assert torch.equal(clip.frames[0], clip.frames[2])
    assert not torch.equal(clip.frames[0], frames[0])


def test_mosaic_joins_four_clips_and_keeps_ids_apart():
    clips = [clip_of([0, 0, 5, 5]) for _ in range(4)]
    joined = transforms.mosaic(clips)
    assert joined.frames.shape == (2, 3, 80, 120)
    assert joined.targets[0].boxes[3].tolist() == [60, 40, 65, 45]
    assert len(set(joined.targets[0].ids.tolist())) == 4


def test_mosaic_with_an_unlabelled_part_is_unlabelled():
    clips = [clip_of([0, 0, 5, 5]) for _ in range(4)]
    clips[2] = Clip(clips[2].frames, [None, clips[2].targets[1]])
    assert [target is None for target in transforms.mosaic(clips).targets] == [True, False]


@pytest.mark.parametrize("seed", range(8))
def test_chosen_region_holds_the_centre_of_the_object(seed):
    clip = clip_of([50, 30, 58, 38], length=1)
    region = transforms.choose_region(
        (40, 60),
        clip.targets,
        out_hw=(16, 16),
        scale=1.0,
        on_object=True,
        generator=generator(seed),
    )
    assert region.x <= 54 <= region.x + region.width
    assert region.y <= 34 <= region.y + region.height


def test_region_grows_for_an_object_larger_than_the_crop():
    clip = clip_of([0, 0, 60, 40], length=1)
    region = transforms.choose_region(
        (40, 60), clip.targets, out_hw=(16, 16), scale=1.0, on_object=True, generator=generator()
    )
    assert region.width == pytest.approx(75)  # 60 / 0.8


def test_resizing_by_float_differs_by_rounding():
    image = torch.randint(0, 256, (1, 3, 40, 60), dtype=torch.uint8)
    a, b = (f(image, (17, 23)) for f in (transforms.resize, transforms.resize_as_float))
    assert (a.int() - b.int()).abs().max() <= 1


def test_moving_crop_goes_from_the_first_region_to_the_last():
    clip = clip_of([20, 10, 30, 20], length=3)
    first, last = Region(0, 0, 20, 10), Region(10, 4, 20, 10)
    moved = transforms.moving_crop(clip, first, last, shares=[0.0, 0.5, 1.0], out_hw=(10, 20))
    regions = [(0, 0), (5, 2), (10, 4)]
    for frame, source, (x, y) in zip(moved.frames, clip.frames, regions, strict=True):
        assert torch.equal(frame, source[:, y : y + 10, x : x + 20])


def test_boxes_follow_the_moving_crop():
    clip = clip_of([20, 10, 30, 20])
    first, last = Region(10, 5, 30, 20), Region(15, 8, 30, 20)
    moved = transforms.moving_crop(clip, first, last, shares=[0.0, 1.0], out_hw=(20, 30))
    boxes = [target.boxes.tolist() for target in moved.targets]
    assert boxes == [[[10.0, 5.0, 20.0, 15.0]], [[5.0, 2.0, 15.0, 12.0]]]
