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


def stated(size, start=0, step=1):
    """The frames of a task or job as CVAT states them, also the last one."""
    stop = start + (size - 1) * step
    filter_ = f"<frame_filter>step={step}</frame_filter>" if step > 1 else "<frame_filter/>"
    return (
        f"<size>{size}</size><start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame>"
        + filter_
    )


@pytest.mark.parametrize(
    ("frame", "size", "expected"),
    [
        (4, stated(6), [None, None, None, None, 10.0, None]),
        (5, stated(6), [None, None, None, None, None, 10.0]),
        (2, stated(3, start=1), [None, 10.0, None]),
        (0, stated(2, step=3), [10.0, None]),
    ],
)
def test_shape_that_cvat_exports_without_an_end_is_in_its_frame_only(
    tmp_path, frame, size, expected
):
    """CVAT ends a shape of one frame in the next one, but not if that is the last one."""
    assert lefts(tmp_path, track(box(frame)), size=size) == expected


def test_track_of_cvat_that_begins_before_the_last_frame_stays(tmp_path):
    found = lefts(tmp_path, track(box(4), box(5)), size=stated(6))
    assert found == [None, None, None, None, 10.0, 10.0]
    assert lefts(tmp_path, track(box(3)), size=stated(6))[3:] == [10.0, 10.0, 10.0]


def write_images_of(root, names):
    write_images(*(root / "train" / "clip" / f"{name}.PNG" for name in names))


def frames_of(root):
    (video,) = read(root).videos
    return [(frame.index, frame.image.stem) for frame in video.frames]


@pytest.mark.parametrize(
    ("size", "frames"),
    [(stated(3, start=5), (5, 6, 7)), (stated(3, start=1, step=2), (1, 3, 5))],
    ids=["job", "steps"],
)
@pytest.mark.parametrize("name", ["frame_{:06d}", "street {}"])
def test_export_of_a_job_or_in_steps_has_the_images_of_its_frames(tmp_path, size, frames, name):
    names = [name.format(frame) for frame in frames]
    write(tmp_path, export(track(box(frames[1])), size=size, kind="job"), frames=0)
    write_images_of(tmp_path, names)
    assert frames_of(tmp_path) == list(zip(frames, names, strict=True))
    assert len(read(tmp_path).videos[0].frames[1].target) == 1


def test_images_that_are_numbered_otherwise_than_the_frames_are_taken_in_their_order(tmp_path):
    names = [f"frame_{number:06d}" for number in range(3)]
    write(tmp_path, export(track(box(6)), size=stated(3, start=5), kind="job"), frames=0)
    write_images_of(tmp_path, names)
    assert frames_of(tmp_path) == list(zip((5, 6, 7), names, strict=True))


def test_frame_that_was_deleted_in_cvat_has_no_image_and_is_left_out(tmp_path):
    text = export(track(box(0), box(1), box(3), box(4)), size=stated(5))
    write(tmp_path, text, frames=0)
    names = [f"frame_{frame:06d}" for frame in (0, 1, 3, 4)]
    write_images_of(tmp_path, names)
    assert frames_of(tmp_path) == list(zip((0, 1, 3, 4), names, strict=True))
    videos, notes = read_notes("cvat_video", tmp_path, "train")
    assert notes == ["1 frame without an image left out"]
    assert [len(frame.target) for frame in videos.videos[0].frames] == [1, 1, 1, 1]


def test_box_in_a_frame_without_an_image_is_reported(tmp_path):
    """Images may count from 1, unlike CVAT's: their labels would be those of the frame before."""
    write(tmp_path, export(track(*map(box, range(6))), size=stated(6)), frames=0)
    write_images_of(tmp_path, [f"frame_{frame:06d}" for frame in range(1, 6)])
    with pytest.raises(RnndetError, match="track 0 frame 0: there is no frame 0"):
        read(tmp_path)


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


def test_blanks_around_names_do_not_matter(tmp_path):
    write(tmp_path, export(track(box(0), label=" car "), labels=("person", "car ")))
    assert read(tmp_path).classes == ("person", "car")


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
        (
            export('<image id="0"/>'),
            r"clip\.xml: an export as CVAT for images; export the task or job as CVAT for video",
        ),
        (
            export(kind="project"),
            r"clip\.xml: an export of a project; export each task as CVAT for video",
        ),
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
