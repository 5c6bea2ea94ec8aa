"""Reader of videos and pictures without labels."""

import cv2
import numpy as np
import pytest
from labelled_sets import SIZE_HW, read_notes, write_images, write_video

from rnndet.data.checks.run import check_dataset
from rnndet.data.formats import read_set
from rnndet.errors import InputError, RnndetError
from rnndet.evaluation.dataset_stats import measure, text
from rnndet.video.image import write_image


def read(root, split="train", **options):
    return read_set("unlabelled", root, split, **options)


def names(root, **options):
    return [video.name for video in read(root, **options).videos]


def indices(root, **options):
    return [frame.index for frame in read(root, **options).videos[0].frames]


def test_video_file_becomes_one_video_of_all_its_frames(tmp_path):
    write_video(tmp_path / "bikes.avi", frames=5)
    (video,) = read(tmp_path).videos
    assert (video.name, video.height, video.width, video.fps) == ("bikes", *SIZE_HW, 10.0)
    assert [frame.index for frame in video.frames] == [0, 1, 2, 3, 4]
    assert video.path == tmp_path / "bikes.avi"


def test_no_frame_is_labelled_and_there_are_no_classes(tmp_path):
    write_video(tmp_path / "bikes.avi", frames=3)
    write_images(tmp_path / "still.png")
    videos = read(tmp_path)
    assert videos.classes == ()
    assert {frame.target for video in videos.videos for frame in video.frames} == {None}


def test_classes_can_be_given(tmp_path):
    write_images(tmp_path / "still.png")
    assert read(tmp_path, classes=["person", "car"]).classes == ("person", "car")


def test_gif_is_a_video(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    images = [pillow.fromarray(np.full((48, 64, 3), 80 * i, np.uint8)) for i in range(3)]
    images[0].save(tmp_path / "walk.gif", save_all=True, append_images=images[1:])
    assert indices(tmp_path) == [0, 1, 2]


def test_each_picture_is_a_video_of_one_frame(tmp_path):
    write_images(tmp_path / "b10.png", tmp_path / "b9.jpg")
    videos = read(tmp_path).videos
    assert [video.name for video in videos] == ["b9", "b10"]
    assert [len(video.frames) for video in videos] == [1, 1]
    assert videos[1].frames[0].image == tmp_path / "b10.png"


def test_folder_of_pictures_is_one_video_on_request(tmp_path):
    write_images(*(tmp_path / "walk" / f"{i}.png" for i in (10, 2, 1)))
    write_video(tmp_path / "bikes.avi", frames=2)
    bikes, walk = read(tmp_path, pictures="frames").videos
    assert (bikes.name, walk.name) == ("bikes", "walk")
    assert [frame.image.name for frame in walk.frames] == ["1.png", "2.png", "10.png"]
    assert [frame.index for frame in walk.frames] == [0, 1, 2]


def test_folder_of_pictures_of_two_sizes_is_no_video(tmp_path):
    write_images(tmp_path / "1.png")
    write_image(tmp_path / "2.png", np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(InputError, match=r"2\.png: 20x10, but the first .* 64x48; .*stills"):
        read(tmp_path, pictures="frames")


def test_videos_are_found_in_any_nesting_and_named_after_their_path(tmp_path):
    write_images(tmp_path / "a" / "my street" / "1.png", tmp_path / ".hidden" / "2.png")
    assert names(tmp_path) == ["a/my_street/1"]


def test_every_video_is_a_scene_group_of_its_own(tmp_path):
    write_images(tmp_path / "a" / "1.png")
    write_video(tmp_path / "bikes.avi", frames=2)
    assert [video.group for video in read(tmp_path).videos] == ["a/1", "bikes"]


def test_files_that_differ_in_the_suffix_keep_it_in_their_names(tmp_path):
    write_images(tmp_path / "bikes.png")
    write_video(tmp_path / "bikes.avi", frames=2)
    assert names(tmp_path) == ["bikes.avi", "bikes.png"]


def test_two_videos_of_one_name_are_refused(tmp_path):
    write_images(tmp_path / "a b.png", tmp_path / "a_b.png")
    with pytest.raises(InputError, match=r"2 videos are called a_b\.png; rename one"):
        read(tmp_path)


def test_single_file_is_a_set(tmp_path):
    write_video(tmp_path / "bikes.avi", frames=2)
    assert names(tmp_path / "bikes.avi") == ["bikes"]


def test_split_is_a_folder_where_there_is_one(tmp_path):
    write_images(tmp_path / "val" / "1.png", tmp_path / "2.png")
    assert names(tmp_path, split="val") == ["1"]
    assert names(tmp_path, split="test") == ["2", "val/1"]


def test_names_choose_videos(tmp_path):
    write_images(tmp_path / "bikes1.png", tmp_path / "bikes2.png", tmp_path / "cars.png")
    assert names(tmp_path, names=["bikes*"]) == ["bikes1", "bikes2"]


def test_names_without_a_match_name_a_video(tmp_path):
    write_images(tmp_path / "cars.png")
    expected = r"none of 1 video matches names = bikes; the first is cars"
    with pytest.raises(InputError, match=expected):
        read(tmp_path, names=["bikes"])


@pytest.mark.parametrize("frames", [1, 2, 5, 10])
@pytest.mark.parametrize("cut", [0.25, 0.5, 0.67])
def test_two_parts_that_meet_hold_every_frame_once(tmp_path, frames, cut):
    write_video(tmp_path / "bikes.avi", frames=frames)
    parts = []
    for part in ({"last": cut}, {"first": cut}):
        videos, _ = read_or_nothing(tmp_path, part)
        parts += [frame.index for video in videos for frame in video.frames]
    assert parts == list(range(frames))


def read_or_nothing(root, options):
    try:
        videos, notes = read_notes("unlabelled", root, "train", **options)
    except InputError as error:
        assert "no video has a frame between first and last" in str(error)
        return (), []
    return videos.videos, notes


def test_video_too_short_for_a_part_is_left_out_and_counted(tmp_path):
    write_images(tmp_path / "still.png")
    write_video(tmp_path / "bikes.avi", frames=6)
    videos, notes = read_or_nothing(tmp_path, {"first": 0.67})
    assert [video.name for video in videos] == ["bikes"]
    assert notes == ["1 video too short for first and last left out"]


def test_empty_part_is_refused(tmp_path):
    with pytest.raises(RnndetError, match=r"first = 0\.5 must be below last = 0\.5"):
        read(tmp_path, first=0.5, last=0.5)


def test_frames_are_counted_by_decoding(tmp_path):
    """A file that was cut off states more frames than it has."""
    path = tmp_path / "bikes.avi"
    write_video(path, frames=50)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)) == 50
    assert 0 < len(indices(tmp_path)) < 50


def test_file_that_cannot_be_decoded_is_a_problem_and_can_be_left_out(tmp_path):
    write_images(tmp_path / "good.png")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"1 entry cannot be used(?s:.*)bad\.mp4: not a video"):
        read(tmp_path)
    assert names(tmp_path, skip_bad=True) == ["good"]


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no videos or pictures found"):
        read(tmp_path)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        read(tmp_path / "nowhere")


def test_check_notes_once_that_nothing_is_labelled(tmp_path):
    write_images(tmp_path / "1.png", tmp_path / "2.png")
    report = check_dataset("unlabelled", tmp_path, ["train"])
    assert [str(finding) for finding in report.findings] == [
        "note: train: the set has no classes, and no frame is labelled"
    ]
    assert report.summary() == "0 errors, 1 note, 2 videos, 2 frames"


def test_stats_count_frames_without_labels(tmp_path):
    write_video(tmp_path / "bikes.avi", frames=3)
    assert "frames 3, labelled frames 0" in text(measure(read(tmp_path)))
