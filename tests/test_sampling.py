"""ClipSampler: classes, scene groups, strides."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from rnndet.data.clips.sampling import ClipSampler, hold_out
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.structures import Target


def target(label):
    return Target(
        torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([label]), None, torch.tensor([False])
    )


def video(name, label, *, length=20, group=None):
    records = tuple(FrameRecord(i, None if label is None else target(label)) for i in range(length))
    return VideoRecord(name, 10, 10, 25.0, records, group=group)


def draws(videos, count, *, classes="even", **options):
    generator = torch.Generator().manual_seed(0)
    sampler = ClipSampler(VideoSet(("a", "b"), tuple(videos)), classes=classes)
    options = {"length": 4, "stride": (1, 1)} | options
    return [sampler.draw(generator, **options) for _ in range(count)]


def test_rare_class_is_drawn_as_often_as_a_common_class():
    videos = [video(f"a{i}", 0) for i in range(9)] + [video("b", 1)]
    names = Counter(choice.video.name == "b" for choice in draws(videos, 400))
    assert 150 < names[True] < 250


def test_natural_draws_a_class_by_its_share_of_the_set():
    videos = [video(f"a{i}", 0) for i in range(9)] + [video("b", 1)]
    drawn = draws(videos, 400, classes="natural")
    assert 20 < sum(choice.video.name == "b" for choice in drawn) < 60  # 1 in 10


def test_natural_counts_frames_not_videos():
    videos = [video("long", 0, length=90), video("short", 1, length=10)]
    drawn = draws(videos, 400, classes="natural")
    assert 20 < sum(choice.video.name == "short" for choice in drawn) < 60  # 1 in 10


def test_scene_group_is_drawn_by_the_square_root_of_its_videos():
    videos = [video(f"x{i}", 0, group="x") for i in range(9)] + [video("y", 0, group="y")]
    names = Counter(choice.video.name == "y" for choice in draws(videos, 400))
    assert 60 < names[True] < 140  # 1 in 4


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_clip_takes_every_nth_frame(stride):
    for choice in draws([video("a", 0)], 20, stride=(stride, stride)):
        indices = [record.index for record in choice.records]
        assert indices == list(range(indices[0], indices[0] + 4 * stride, stride))


def test_every_stride_of_the_range_is_drawn():
    firsts = [choice.records[:2] for choice in draws([video("a", 0)], 60, stride=(1, 3))]
    assert {b.index - a.index for a, b in firsts} == {1, 2, 3}


def test_drawn_frame_is_at_any_position_of_the_clip():
    records = list(video("a", None).frames)
    records[10] = replace(records[10], target=target(0))
    shown = draws([replace(video("a", None), frames=tuple(records))], 60)
    assert {choice.records.index(records[10]) for choice in shown} == {0, 1, 2, 3}


def test_short_video_gets_a_smaller_stride():
    choice = draws([video("a", 0, length=5)], 1, length=5, stride=(3, 3))[0]
    assert [record.index for record in choice.records] == [0, 1, 2, 3, 4]


def test_video_shorter_than_the_clip_repeats_its_last_frame():
    choice = draws([video("a", 0, length=2)], 1)[0]
    assert [record.index for record in choice.records] == [0, 1, 1, 1]


def test_unlabelled_video_is_never_drawn():
    drawn = {c.video.name for c in draws([video("a", 0), video("u", None)], 50)}
    assert drawn == {"a"}


def test_video_whose_objects_are_ignored_is_never_drawn():
    ignored = replace(target(1), ignore=torch.tensor([True]))
    other = replace(video("b", None), frames=(FrameRecord(0, ignored),))
    assert {choice.video.name for choice in draws([video("a", 0), other], 50)} == {"a"}


def test_set_without_objects_is_an_error():
    empty = replace(video("u", None), frames=(FrameRecord(0, Target.empty()),))
    with pytest.raises(RnndetError, match="no labelled object"):
        ClipSampler(VideoSet(("a",), (empty,)))


@pytest.mark.parametrize("classes", ["even", "natural"])
def test_every_frame_of_a_set_without_labels_is_drawn(classes):
    videos = [video("u", None, length=6), video("still", None, length=1)]
    drawn = draws(videos, 60, classes=classes)
    frames = {(choice.video.name, r.index) for choice in drawn for r in choice.records}
    assert frames == {("still", 0), *(("u", i) for i in range(6))}


def test_still_picture_becomes_a_clip_of_one_repeated_frame():
    (choice,) = draws([video("still", None, length=1)], 1)
    assert [record.index for record in choice.records] == [0, 0, 0, 0]


def test_hold_out_splits_whole_groups():
    videos = tuple(video(f"v{i}", 0, group=str(i % 2)) for i in range(4))
    rest, held = hold_out(VideoSet(("a",), videos), ["1"])
    assert [v.name for v in rest.videos] == ["v0", "v2"]
    assert [v.name for v in held.videos] == ["v1", "v3"]


def test_unknown_group_is_an_error():
    with pytest.raises(RnndetError, match="no scene group 7"):
        hold_out(VideoSet(("a",), (video("a", 0, group="1"),)), ["7"])
