"""Objects of other videos in training clips."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import SIZE_HW, write_coco_vid
from rnndet import boxes as box_ops
from rnndet.config import AugmentConfig, ClipConfig, config_from_dict
from rnndet.data.clips import paste
from rnndet.data.clips.dataset import ClipDataset
from rnndet.data.clips.transforms import Clip
from rnndet.data.formats import read_set
from rnndet.data.records import FrameRecord
from rnndet.errors import RnndetError
from rnndet.structures import Target

PLAIN = {"corrupt": 0.0, "colour": 0.0, "flip": 0.0, "on_object": 0.0, "zoom_min": 1.0}


def clips_of(root, *, videos=None, length=3, windows=1, steps=12, **augment):
    """Clips of whole frames at the scale of the model, unless changed."""
    found = read_set("coco_vid", root, "train")
    augment = {"crop": SIZE_HW, "zoom_max": 1.0} | PLAIN | augment
    return ClipDataset(
        [(found if videos is None else replace(found, videos=videos), 1.0, None)],
        size_hw=SIZE_HW,
        clip=ClipConfig(length=length, windows=windows, stride_max=1, streamed=windows > 1),
        augment=AugmentConfig(**augment),
        rows=1,
        steps=steps,
    )


def without_some(video, *, every):
    """The video with every n-th frame unlabelled."""
    frames = tuple(
        replace(record, target=None) if record.index % every == 0 else record
        for record in video.frames
    )
    return replace(video, frames=frames)


def without_ids(video):
    frames = tuple(
        replace(r, target=Target(r.target.boxes, r.target.labels, None, r.target.ignore))
        for r in video.frames
    )
    return replace(video, frames=frames)


# Place, first box, and mean grey level of the last frame of clips, from the version before pasting.
EARLIER = [
    ("v0 frames 5 to 3", [13.58, 21.33, 29.09, 36.85], 136.81),
    ("v1 frames 4 to 0", [23.77, 18.29, 45.71, 27.43], 108.57),
    ("v0 frames 0 to 4", [36.57, 13.71, 54.86, 32.0], 109.73),
    (
        "v0 frames 2 to 2 + v0 frames 5 to 1 + v0 frames 3 to 5 + v1 frames 4 to 0",
        [4.57, 11.89, 19.2, 26.51],
        112.34,
    ),
    ("v1 frames 4 to 2", [35.14, 25.1, 64.0, 37.65], 85.33),
    ("v0 frames 0 to 2", [0.0, 20.32, 2.03, 36.57], 141.17),
    ("v1 frames 1 to 5", [54.15, 19.69, 64.0, 32.0], 109.67),
    ("v0 frames 4 to 0", [39.9, 27.43, 53.19, 40.73], 98.49),
]


def test_without_pasting_clips_are_those_of_earlier_versions(tmp_path):
    write_coco_vid(tmp_path)
    augment = AugmentConfig(crop=(64, 64), mosaic=0.3, still=0.2, corrupt=0.0)
    clips = ClipDataset(
        [(read_set("coco_vid", tmp_path, "train"), 1.0, None)],
        size_hw=SIZE_HW,
        clip=ClipConfig(length=3, stride_max=2),
        augment=augment,
        rows=1,
        steps=8,
    )
    for index, (place, box, grey) in enumerate(EARLIER):
        assert clips[index].place == place
        assert clips[index].targets[0].boxes[0].tolist() == pytest.approx(box, abs=0.01)
        assert float(clips[index].frames[-1].float().mean()) == pytest.approx(grey, abs=0.05)


def test_pasted_pixels_lie_in_the_boxes_of_the_target(coco_vid_root):
    """Objects are the only red things and fill their boxes."""
    clips = clips_of(coco_vid_root, paste=1.0, paste_zoom_min=0.7)
    pasted = 0
    for index in range(len(clips)):
        clip = clips[index]
        for frame, target in zip(clip.frames, clip.targets, strict=True):
            red = (frame[0].int() - frame[2].int()) > 90
            pasted += len(target) > 1
            for x1, y1, x2, y2 in target.boxes.round().int().tolist():
                assert red[y1:y2, x1:x2].float().mean() > 0.7
                red[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = False
            assert not red.any()
    assert pasted > 9


@pytest.mark.parametrize("zoom", [0.5, 1.0, 1.3])
def test_the_size_of_a_pasted_object_follows_the_zoom(coco_vid_root, zoom):
    """Objects are 16x16 and 24x10."""
    clips = clips_of(coco_vid_root, paste=1.0, paste_zoom_min=zoom, paste_zoom_max=zoom)
    sizes = []
    for index in range(len(clips)):
        for target in clips[index].targets:
            extra = target[1:][~target.ignore[1:]]
            whole = (extra.boxes[:, :2] > 0) & (extra.boxes[:, 2:] < torch.tensor(SIZE_HW[::-1]))
            extra = extra[whole.all(-1)]
            sizes += zip((extra.boxes[:, 2:] - extra.boxes[:, :2]).tolist(), extra.labels.tolist(),
                         strict=True)  # fmt: skip
    assert sizes
    for size, label in sizes:
        expected = [zoom * side for side in ((16, 16), (24, 10))[label]]
        assert size == pytest.approx(expected, rel=0.05)


def test_the_mask_is_opaque_in_the_object_and_clear_around_it():
    """A dark disc of radius 10 in front of a slope with noise."""
    x, y = np.meshgrid(np.arange(48), np.arange(48))
    noise = np.random.default_rng(0).normal(0, 1.5, (3, 48, 48))
    image = 120 + x + 0.5 * y + noise
    from_centre = np.hypot(x - 23.5, y - 23.5)
    image[:, from_centre < 10] = 40
    box, region = torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([[3.0, 3, 45, 45]])
    alpha = paste.soft_mask(torch.from_numpy(image)[None].float(), box, region).alpha[0, 0].numpy()
    assert alpha[from_centre < 8].min() > 0.95
    assert alpha[from_centre > 14].max() < 0.05
    assert ((alpha > 0.1) & (alpha < 0.9)).any()


def test_in_front_of_clutter_the_mask_is_an_ellipse():
    image = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 3, 48, 48))).float()
    box, region = torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([[3.0, 3, 45, 45]])
    alpha = paste.soft_mask(image, box, region).alpha[0, 0]
    assert float(alpha[18:30, 18:30].min()) > 0.95
    edge = torch.cat([alpha[3], alpha[44], alpha[:, 3], alpha[:, 44]])
    assert float(edge.max()) < 0.05
    assert float(alpha[6, 6]) == 0


def test_an_object_that_is_cut_off_leaves_no_edge():
    """A bar that goes on beyond its box and region: the mask falls to 0 at the region's edges."""
    image = torch.full((1, 3, 40, 40), 200.0)
    image[..., 16:24] = 30
    region = torch.tensor([[4.0, 4, 36, 36]])
    box = torch.tensor([[7.0, 7, 33, 33]])
    alpha = paste.soft_mask(image, box, region).alpha[0, 0]
    assert float(alpha[12:28, 18:22].min()) > 0.95
    assert float(alpha[[4, 35]].max()) < 0.2 and float(alpha[[3, 36]].max()) == 0


def test_ids_are_distinct_and_constant(coco_vid_root):
    clips = clips_of(coco_vid_root, length=2, windows=3, steps=30, paste=1.0, paste_zoom_min=0.3)
    for clip in range(10):
        targets = [t for part in range(3) for t in clips[3 * clip + part].targets]
        labels = {}
        for target in targets:
            assert len(set(target.ids.tolist())) == len(target)
            for number, label in zip(target.ids.tolist(), target.labels.tolist(), strict=True):
                assert labels.setdefault(number, label) == label


def test_windows_of_a_clip_agree(coco_vid_root):
    changes = {"paste": 1.0, "still": 0.3, "flip": 0.5, "colour": 1.0, "mosaic": 0.3}
    changes |= {"paste_zoom_min": 0.3, "paste_most": 3}
    whole = clips_of(coco_vid_root, length=6, **changes)
    cut = clips_of(coco_vid_root, length=2, windows=3, steps=36, **changes)
    # rows of one window and streamed rows count their clips from different seeds
    whole._generator = lambda number, own=cut._generator: own(number + (1 << 40))
    whole._plan = lambda length, generator: [None] * length
    for clip in range(12):
        windows = [cut[3 * clip + part] for part in range(3)]
        assert torch.equal(torch.cat([w.frames for w in windows]), whole[clip].frames)
        parts = [target for window in windows for target in window.targets]
        for part, target in zip(parts, whole[clip].targets, strict=True):
            assert torch.equal(part.boxes, target.boxes) and torch.equal(part.ids, target.ids)


def test_unlabelled_frames_are_left_alone(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train").videos
    videos = (without_some(videos[0], every=3), videos[1])
    changes = {"videos": videos, "length": 3, "steps": 30}
    pasted = clips_of(coco_vid_root, **changes, paste=1.0, paste_zoom_min=0.3)
    plain = clips_of(coco_vid_root, **changes, paste=1e-9)
    seen = 0
    for index in range(30):
        a, b = pasted[index], plain[index]
        for t, target in enumerate(b.targets):
            if target is None:
                assert a.targets[t] is None
                assert torch.equal(a.frames[t], b.frames[t])
                seen += any(x is not None and len(x) > 1 for x in a.targets)
    assert seen > 3


def test_pasted_objects_touch_no_other_object(coco_vid_root):
    clips = clips_of(coco_vid_root, paste=1.0, paste_most=3, steps=40, flip=0.5, still=0.3)
    pairs = 0
    for index in range(40):
        for target in clips[index].targets:
            boxes = target.boxes.numpy()
            shares = box_ops.pairwise_share(boxes, boxes)
            np.fill_diagonal(shares, 0)
            assert shares.max(initial=0) == 0
            pairs += len(boxes) > 1
    assert pairs > 20


def test_an_object_without_id_is_pasted_from_a_single_frame_only(coco_vid_root):
    videos = read_set("coco_vid", coco_vid_root, "train").videos
    nameless = tuple(without_ids(video) for video in videos)
    still = tuple(replace(video, frames=video.frames[:1]) for video in nameless)
    for donors, is_pasted in ((nameless, False), (still, True)):
        clips = clips_of(coco_vid_root, videos=donors, paste=1.0, paste_zoom_min=0.4)
        counts = {len(t) for index in range(len(clips)) for t in clips[index].targets}
        assert (max(counts) > 1) == is_pasted


def record(index, boxes, *, ids=(7,), ignore=False):
    count = len(boxes)
    target = Target(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.zeros(count, dtype=torch.int64),
        torch.tensor(ids[:count]),
        torch.full((count,), ignore),
    )
    return FrameRecord(index, target)


@pytest.mark.parametrize(
    "second",
    [
        record(1, [[30, 30, 40, 40]], ignore=True),
        record(1, [[30, 30, 40, 40]], ids=(8,)),
        record(1, [[0, 30, 10, 40]]),
        record(1, []),
        FrameRecord(1, None),
    ],
    ids=["ignored", "other", "at the edge", "absent", "unlabelled"],
)
def test_an_object_is_used_only_if_it_is_whole_and_labelled_in_all_frames(second):
    first = record(0, [[30, 30, 40, 40]])
    good = record(1, [[31, 30, 41, 40]])
    assert len(paste.complete_tracks([first, good], frame_hw=(100, 100))) == 1
    assert paste.complete_tracks([first, second], frame_hw=(100, 100)) == []


def placed(step, *, flip=0.0, scale=0.5, frames=5):
    """The placement of a 20x12 object that moves `step` px to the right per frame."""
    boxes = [[40 + step * t, 50, 60 + step * t, 62] for t in range(frames)]
    return paste.place(
        paste.Track(0, np.array(boxes, np.float32)),
        frame_hw=(400, 400),
        scale=scale,
        out_hw=(80, 80),
        taken=[np.zeros((0, 4), np.float32)] * frames,
        flip=flip,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize(("flip", "direction"), [(0.0, 1), (1.0, -1)])
def test_a_pasted_object_keeps_its_own_path(flip, direction):
    boxes = placed(8, flip=flip).boxes
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    moved = centres - centres[0]
    assert moved[:, 0] == pytest.approx(direction * 4 * np.arange(5), abs=1.1)
    assert moved[:, 1] == pytest.approx(np.zeros(5), abs=0.6)


def test_in_the_middle_frame_the_object_is_inside_the_image():
    box = placed(60, scale=1.0).boxes[2]
    assert box[:2].min() > -1 and box[2:].max() < 81


def test_a_pasted_object_that_leaves_the_image_is_ignored_and_then_absent():
    placement = placed(14, scale=1.0, frames=9)
    donor = torch.full((9, 3, 400, 400), 200, dtype=torch.uint8)
    for t in range(9):
        donor[t, :, 50:62, 40 + 14 * t : 60 + 14 * t] = 20
    clip = Clip(torch.full((9, 3, 80, 80), 180, dtype=torch.uint8), [Target.empty()] * 9)
    result = paste.paste(clip, donor, placement, shown=range(9), number=5)
    whole = box_ops.area(placement.boxes)
    visible = box_ops.area(box_ops.clip(placement.boxes, size_hw=(80, 80))) / whole
    assert {bool(target.ignore[0]) for target in result.targets if len(target)} == {False, True}
    for target, share in zip(result.targets, visible, strict=True):
        assert len(target) == (share > 0)
        if len(target):
            assert bool(target.ignore[0]) == (share < 0.35)


def test_a_pasted_object_has_no_halo():
    """A blurred dark object of a bright background makes no pixel of a dark image brighter.

    With the background's own colour its rim would be brighter than the image.
    """
    donor = torch.full((5, 3, 400, 400), 220.0)
    donor[..., 52:60, 42:58] = 20
    donor = torch.nn.functional.avg_pool2d(donor, 5, 1, 2, count_include_pad=False).byte()
    clip = Clip(torch.full((5, 3, 80, 80), 90, dtype=torch.uint8), [Target.empty()] * 5)
    result = paste.paste(clip, donor, placed(0, scale=1.0), shown=range(5), number=5)
    assert int(result.frames.min()) < 40
    assert int(result.frames.max()) < 97


def test_an_object_that_cannot_be_seen_is_ignored():
    clip = Clip(torch.full((5, 3, 80, 80), 180, dtype=torch.uint8), [Target.empty()] * 5)
    donor = torch.full((5, 3, 400, 400), 200, dtype=torch.uint8)
    result = paste.paste(clip, donor, placed(0), shown=range(5), number=5)
    assert all(target.ignore.tolist() == [True] for target in result.targets)


def test_the_smallest_paste_zoom_is_at_most_the_largest():
    tree = {"augment": {"paste_zoom_min": 2.0, "paste_zoom_max": 1.0}}
    with pytest.raises(RnndetError, match=r"augment\.paste_zoom_min must be at most"):
        config_from_dict(tree, where="test")
