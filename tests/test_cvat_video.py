"""Reader of CVAT for video."""

import pytest
from labelled_sets import read_notes, write_images, write_video

from rnndet.data.formats import read_set
from rnndet.errors import RnndetError

CORNERS = 'xtl="10" ytl="8" xbr="30" ybr="20"'


def box(frame, corners=CORNERS, *, outside=0, more=""):
    return (
        f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1" {corners} {more}>'
        '<attribute name="parked">no</attribute></box>'
    )


def track(*shapes, number=0, label="car"):
    return f'<track id="{number}" label="{label}" source="manual">{"".join(shapes)}</track>'


def export(*tracks, size="<size>6</size>", labels=("person", "car"), kind="task", wh=(64, 48)):
    names = "".join(f"<label><name>{name}</name></label>" for name in labels)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
        f"<meta><{kind}><name>clip</name>{size}<labels>{names}</labels><original_size>"
        f"<width>{wh[0]}</width><height>{wh[1]}</height></original_size></{kind}></meta>"
        f"{''.join(tracks)}</annotations>"
    )


def write(root, text, *, name="clip", frames=6):
    (root / "train").mkdir(exist_ok=True)
    (root / "train" / f"{name}.xml").write_text(text)
    write_images(*(root / "train" / name / f"{i}.png" for i in range(frames)))


def read(root, split="train", **options):
    return read_set("cvat_video", root, split, **options)


def lefts(root, *tracks, **meta):
    """x1 of the only box of each frame, None where there is none."""
    write(root, export(*tracks, **meta))
    targets = [frame.target for frame in read(root).videos[0].frames]
    return [target.boxes[0, 0].item() if len(target) else None for target in targets]


def test_reads_classes_boxes_and_ids_of_images(tmp_path):
    write(tmp_path, export(track(box(1), box(2, outside=1), number=4)))
    found = read(tmp_path)
    (video,) = found.videos
    assert found.classes == ("person", "car")
    assert (video.name, video.height, video.width, video.path) == ("clip", 48, 64, None)
    assert [len(frame.target) for frame in video.frames] == [0, 1, 0, 0, 0, 0]
    target = video.frames[1].target
    assert video.frames[1].image.name == "1.png"
    assert target.boxes.tolist() == [[10.0, 8.0, 30.0, 20.0]]
    assert (target.labels.tolist(), target.ids.tolist()) == ([1], [4])


@pytest.mark.parametrize("kind", ["task", "job"])
def test_reads_the_frames_of_a_video_file_beside_it(tmp_path, kind):
    (tmp_path / "clip.xml").write_text(export(track(box(5)), kind=kind))
    write_video(tmp_path / "clip.avi", frames=6)
    (video,) = read(tmp_path, ".").videos
    assert (video.path, video.fps) == (tmp_path / "clip.avi", 10.0)
    assert [(frame.index, frame.image) for frame in video.frames] == [(i, None) for i in range(6)]
    assert len(video.frames[5].target) == 1


def test_path_of_the_videos_can_be_given(tmp_path):
    write(tmp_path, export(track(box(0))))
    (tmp_path / "videos").mkdir()
    (tmp_path / "train" / "clip").rename(tmp_path / "videos" / "clip_v2")
    found = read(tmp_path, video="videos/{stem}_v2")
    assert found.videos[0].frames[0].image.parent.name == "clip_v2"


def test_boxes_are_interpolated_linearly(tmp_path):
    last = box(4, 'xtl="18" ytl="8" xbr="38" ybr="20"')
    found = lefts(tmp_path, track(box(0), last, box(5, outside=1)))
    assert found == [10.0, 12.0, 14.0, 16.0, 18.0, None]


def test_boxes_of_a_track_may_come_in_any_order(tmp_path):
    found = lefts(tmp_path, track(box(5, outside=1), box(4), box(2)))
    assert found == [None, None, 10.0, 10.0, 10.0, None]


def test_track_is_absent_from_an_outside_box_to_its_next(tmp_path):
    back = box(4, 'xtl="18" ytl="8" xbr="38" ybr="20"')
    found = lefts(tmp_path, track(box(0), box(1), box(2, outside=1), back, box(5, outside=1)))
    assert found == [10.0, 10.0, None, None, 18.0, None]


def test_track_without_end_stays_to_the_end_of_the_task(tmp_path):
    assert lefts(tmp_path, track(box(3))) == [None, None, None, 10.0, 10.0, 10.0]


def test_task_may_be_a_part_of_the_video_in_steps(tmp_path):
    size = "<size>2</size><start_frame>1</start_frame><frame_filter>step=3</frame_filter>"
    write(tmp_path, export(track(box(1)), size=size))
    (video,) = read(tmp_path).videos
    assert [frame.index for frame in video.frames] == [1, 4]
    assert video.frames[1].image.name == "4.png" and len(video.frames[1].target) == 1


def test_without_a_size_all_frames_of_the_video_are_labelled(tmp_path):
    assert lefts(tmp_path, track(box(4)), size="") == [None] * 4 + [10.0, 10.0]


def test_box_beyond_the_claimed_length_of_a_video_file_is_read(tmp_path):
    (tmp_path / "clip.xml").write_text(export(track(box(8)), size=""))
    write_video(tmp_path / "clip.avi", frames=6)
    assert len(read(tmp_path, ".").videos[0].frames) == 9


def test_other_shapes_and_rotation_are_counted(tmp_path):
    polygon = '<polygon frame="0" outside="0" points="1,2;3,4;5,6"/>'
    write(tmp_path, export(track(box(0, more='rotation="30"')), track(polygon, polygon, number=1)))
    _, notes = read_notes("cvat_video", tmp_path, "train")
    assert notes == [
        "1 rotated box read as upright",
        "2 shapes other than boxes left out",
    ]


def test_classes_of_several_files_are_joined(tmp_path):
    write(tmp_path, export(track(box(0), label="car"), labels=("car",)), name="a")
    write(tmp_path, export(track(box(0), label="bird"), labels=("bird", "car")), name="b")
    found = read(tmp_path)
    assert found.classes == ("car", "bird")
    assert [video.frames[0].target.labels.tolist() for video in found.videos] == [[0], [1]]


def test_classes_can_be_given(tmp_path):
    write(tmp_path, export(track(box(0))))
    found = read(tmp_path, classes=["car", "bus"])
    assert found.classes == ("car", "bus")
    assert found.videos[0].frames[0].target.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (track(box(0, 'xtl="30" ytl="8"')), "track 0 frame 0: .* not made of numbers"),
        (track(box("one")), "track 0 frame one: .* not made of numbers"),
        (track(box(2), box(2)), "track 0 frame 2: the frame is there twice"),
        (track(box(7)), "track 0 frame 7: there is no frame 7"),
        (track(box(-1)), "track 0 frame -1: there is no frame -1"),
        (track(box(0), label="bird"), "track 0: label 'bird' is unknown; known are person, car"),
        (track(box(0), number="x"), "track x: the id is not a number"),
        (track(box(0)) + track(box(5)), "track 0 frame 5: the id 0 comes twice"),
    ],
)
def test_invalid_track_is_reported(tmp_path, element, message):
    write(tmp_path, export(element))
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations/>", r"clip\.xml: not an export .* CVAT for video"),
        (export('<image id="0"/>'), r"clip\.xml: not an export .* CVAT for video"),
        (export(wh=(640, 480)), r"labels images of 640x480, but the images of .* have 64x48"),
        (export(wh=("wide", 48)), "width> is not a whole number: 'wide'"),
        (export(size="<size>0</size>"), "a task of 0 frames"),
        (export(size="<size>1000000000000</size>"), "a task of 1000000000000 frames"),
        (export(size="<size>7</size>"), "holds 6 images; 7 are labelled"),
    ],
)
def test_invalid_file_is_reported(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(RnndetError, match=message):
        read(tmp_path)


def test_an_impossible_frame_of_a_video_file_is_refused(tmp_path):
    (tmp_path / "clip.xml").write_text(export(track(box(10**12)), size=""))
    write_video(tmp_path / "clip.avi", frames=6)
    with pytest.raises(RnndetError, match=r"1000000000001 frames are claimed or labelled"):
        read(tmp_path, ".")


def test_labels_without_a_video_are_a_problem(tmp_path):
    (tmp_path / "clip.xml").write_text(export(track(box(0))))
    with pytest.raises(RnndetError, match=r"clip\.xml: labels without a video; expected clip\.mp4"):
        read(tmp_path, ".")


def test_labels_of_two_videos_are_a_problem(tmp_path):
    write(tmp_path, export(track(box(0))))
    (tmp_path / "train" / "clip.mp4").write_bytes(b"0")
    with pytest.raises(RnndetError, match=r"clip\.xml: may label clip and clip\.mp4"):
        read(tmp_path)


def test_two_videos_of_the_same_name_are_refused(tmp_path):
    write(tmp_path, export(), name="a b")
    write(tmp_path, export(), name="a_b")
    with pytest.raises(RnndetError, match="two videos are called a_b"):
        read(tmp_path)


def test_video_file_without_labels_is_counted(tmp_path):
    write(tmp_path, export(track(box(0))))
    write_video(tmp_path / "train" / "other.avi", frames=1)
    _, notes = read_notes("cvat_video", tmp_path, "train")
    assert notes == ["1 video without labels left out"]
