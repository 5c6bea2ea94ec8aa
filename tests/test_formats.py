"""All dataset formats with labels, on the small sets of labelled_sets.py."""

import json
import math
import os
import re
from pathlib import Path

import pytest
from labelled_sets import LAYOUTS, SIZE_HW, read, write_images, write_set

from rnndet.data.formats import FORMATS, read_set, reader_options
from rnndet.data.formats.text import read_text
from rnndet.data.problems import Problems
from rnndet.errors import InputError, RnndetError

every_format = pytest.mark.parametrize("format", LAYOUTS)
# Formats with a label file for each video.
FILE_PER_VIDEO = [
    "bdd100k_mot", "cvat_video", "kitti_tracking", "labelled_folder", "ua_detrac", "visdrone_vid",
]  # fmt: skip
JSON = ["bdd100k_mot", "coco_vid", "youtube_vis"]
XML = ["cvat_video", "imagenet_vid", "pascal_voc", "ua_detrac"]


def first_target(format, root):
    return read(format, root).videos[0].frames[1].target


def test_every_format_with_labels_has_a_small_set():
    assert LAYOUTS.keys() == FORMATS.keys() - {"unlabelled"}  # test_unlabelled.py


@every_format
def test_classes_frames_and_size_of_a_video_are_read(format, tmp_path):
    layout = LAYOUTS[format]
    write_set(format, tmp_path)
    videos = read(format, tmp_path)
    (video,) = videos.videos
    assert videos.classes == layout.classes
    assert (video.name, video.fps, video.path) == ("v", layout.fps, None)
    assert (video.height, video.width) == SIZE_HW
    assert [frame.index for frame in video.frames] == [0, 1, 2]
    assert [frame.image for frame in video.frames] == layout.image_files(tmp_path, "v")


@every_format
def test_box_has_its_label_and_identity_and_other_frames_are_labelled_empty(format, tmp_path):
    write_set(format, tmp_path)
    videos = read(format, tmp_path)
    assert [len(frame.target) for frame in videos.videos[0].frames] == [0, 1, 0]
    target = videos.videos[0].frames[1].target
    name = "pedestrian" if format == "mot" else "car"
    assert target.boxes.tolist() == [[10.0, 8.0, 30.0, 20.0]]
    assert [videos.classes[label].lower() for label in target.labels] == [name]
    assert target.ids.tolist() == [LAYOUTS[format].track]
    assert target.ignore.tolist() == [False]


@every_format
def test_fractional_box_is_read_to_the_last_digit(format, tmp_path):
    write_set(format, tmp_path, box=(10.5, 8.25, 30.75, 20.0))
    assert first_target(format, tmp_path).boxes.tolist() == [[10.5, 8.25, 30.75, 20.0]]


@every_format
@pytest.mark.parametrize(
    ("box", "clipped"),
    [((-10, 20, 30, 60), [0.0, 20.0, 30.0, 48.0]), ((50, -5, 70, 20), [50.0, 0.0, 64.0, 20.0])],
)
def test_box_is_clipped_to_the_image(format, tmp_path, box, clipped):
    write_set(format, tmp_path, box=box)
    assert first_target(format, tmp_path).boxes.tolist() == [clipped]


@every_format
@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((math.nan, 8, 30, 20), "not in pixels"),
        ((math.inf, 8, math.inf, 20), "not in pixels"),
        ((10, 8, 1e9, 20), "not in pixels"),
        ((30, 8, 10, 20), "has a negative size"),
    ],
)
def test_impossible_box_is_reported_with_its_file_and_place(format, tmp_path, box, message):
    file, *_ = write_set(format, tmp_path, box=box)
    expected = rf"1 entry cannot be used(?s:.*){file.name}: {LAYOUTS[format].entry}: .*{message}"
    with pytest.raises(InputError, match=expected):
        read(format, tmp_path)


@every_format
def test_impossible_box_is_left_out_on_request(format, tmp_path):
    write_set(format, tmp_path, box=(30, 8, 10, 20))
    frames = read(format, tmp_path, skip_bad=True).videos[0].frames
    assert [len(frame.target) for frame in frames] == [0, 0, 0]


def doubled(format, text):
    """The labels of the small set with its box in them twice."""
    match format:
        case "coco_vid":
            tree = json.loads(text)
            tree["annotations"].append(tree["annotations"][0] | {"id": 2})
            return json.dumps(tree)
        case "bdd100k_mot":
            frames = json.loads(text)
            return json.dumps([frame | {"labels": 2 * frame["labels"]} for frame in frames])
        case "cvat_video" | "imagenet_vid" | "pascal_voc" | "ua_detrac":
            return re.sub(r"<(track|object|target)[ >].*</\1>", r"\g<0>\g<0>", text)
    return 2 * text


# in youtube_vis it is its id, and ImageNet VID is read all the same
@pytest.mark.parametrize("format", sorted(LAYOUTS.keys() - {"youtube_vis", "imagenet_vid"}))
def test_identity_that_a_frame_has_twice_is_reported(format, tmp_path):
    file, *_ = write_set(format, tmp_path)
    file.write_text(doubled(format, file.read_text()))
    with pytest.raises(InputError, match=rf"1 entry(?s:.*){file.name}: .* comes twice in "):
        read(format, tmp_path)
    frames = read(format, tmp_path, skip_bad=True).videos[0].frames
    assert [len(frame.target) for frame in frames] == [0, 1, 0]


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_identity_of_an_ignored_object_may_come_twice(key, tmp_path):
    file, *_ = write_set("coco_vid", tmp_path)
    tree = json.loads(doubled("coco_vid", file.read_text()))
    tree["annotations"][1][key] = 1
    file.write_text(json.dumps(tree))
    target = read("coco_vid", tmp_path).videos[0].frames[1].target
    assert target.ids.tolist() == [7, 7]


@every_format
def test_labels_that_are_not_utf8_are_named(format, tmp_path):
    file, *_ = write_set(format, tmp_path)
    file.write_bytes(file.read_text().encode("utf-16"))
    with pytest.raises(InputError, match=rf"{file.name}: not UTF-8 text"):
        read(format, tmp_path)


@pytest.mark.parametrize("format", JSON)
@pytest.mark.parametrize("text", ["", "{", "[{", '"text"', "[" * 100_000])
def test_broken_json_is_named(format, tmp_path, text):
    file, *_ = write_set(format, tmp_path)
    file.write_text(text)
    with pytest.raises(InputError, match=rf"{file.name}: not (valid JSON|in .* form)"):
        read(format, tmp_path)


@pytest.mark.parametrize("format", XML)
@pytest.mark.parametrize("size", [0, 1, -20])
def test_truncated_xml_is_named(format, tmp_path, size):
    file, *_ = write_set(format, tmp_path)
    file.write_text(file.read_text()[:size])
    with pytest.raises(InputError, match=rf"{file.name}: not valid XML"):
        read(format, tmp_path)


@pytest.mark.parametrize("format", XML)
def test_xml_with_a_doctype_is_refused(format, tmp_path):
    file, *_ = write_set(format, tmp_path)
    file.write_text('<!DOCTYPE a [<!ENTITY b "boom">]>' + file.read_text())
    with pytest.raises(InputError, match=rf"{file.name}: has a DOCTYPE"):
        read(format, tmp_path)


@every_format
def test_empty_folder_states_which_files_are_expected(format, tmp_path):
    with pytest.raises(InputError, match=LAYOUTS[format].nothing):
        read(format, tmp_path)


@pytest.mark.parametrize("format", FILE_PER_VIDEO)
def test_videos_without_labels_are_left_out_and_counted(format, tmp_path):
    layout, problems = LAYOUTS[format], Problems()
    write_set(format, tmp_path)
    write_images(*layout.image_files(tmp_path, "w"))
    videos = read(format, tmp_path, problems=problems)
    assert [video.name for video in videos.videos] == ["v"]
    assert problems.notes() == ["1 video without labels left out"]


@pytest.mark.parametrize("format", [*FILE_PER_VIDEO, "mot"])
def test_video_without_images_is_reported_and_the_others_are_read(format, tmp_path):
    problems = Problems()
    write_set(format, tmp_path)
    write_set(format, tmp_path, name="w", images=False)
    videos = read(format, tmp_path, skip_bad=True, problems=problems)
    assert [video.name for video in videos.videos] == ["v"]
    assert re.search("image|img1", problems.found[-1].reason)
    assert all("/w" in problem.where for problem in problems.found)


# names of classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("car, bus, car", "class 'car' is named twice, as 0 and 2"),
        ("'', bus, car", "class 0 has no name"),
        ("car, ' ', bus", "class 1 has no name"),
    ],
)
def test_class_without_a_name_of_its_own_is_refused(tmp_path, names, message):
    """Training would have a class that evaluation, which goes by names, cannot tell apart."""
    write_set("yolo", tmp_path)
    (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: [{names}]\n")
    with pytest.raises(InputError, match=f"^{tmp_path}: {message}"):
        read("yolo", tmp_path)


def test_repeated_name_in_the_option_classes_is_refused(tmp_path):
    write_set("mot", tmp_path)
    with pytest.raises(InputError, match="class 'car' is named twice, as 0 and 1"):
        read("mot", tmp_path, classes=["car", "car"])


# formats and options by name


def test_unknown_format_lists_the_choices(tmp_path):
    with pytest.raises(RnndetError, match="choose one of: bdd100k_mot, coco_vid"):
        read_set("vod", tmp_path, "train")


def test_unknown_option_names_the_nearest(tmp_path):
    with pytest.raises(RnndetError, match="did you mean 'annotations'"):
        read_set("coco_vid", tmp_path, "train", annotation="x.json")


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("mot", {"classes": "bird"}, "classes must be a list, found 'bird'"),
        ("mot", {"classes": [1]}, "classes.0 must be str"),
        ("imagenet_vid", {"index": 5}, "index must be str, found 5"),
        ("imagenet_vid", {"unlabelled": "yes"}, "unlabelled must be bool"),
    ],
)
def test_option_of_another_type_is_refused(tmp_path, format, options, message):
    with pytest.raises(RnndetError, match=message):
        read_set(format, tmp_path, "train", **options)


def test_option_with_the_name_of_a_parameter_of_read_set_is_refused():
    with pytest.raises(RnndetError, match="`options` split"):
        reader_options(["split=val"])


def test_error_of_the_file_system_is_one_line_that_names_the_file(tmp_path, monkeypatch):
    def refuse(root, split, problems):
        raise PermissionError(13, "Permission denied", "data/gt")

    monkeypatch.setitem(FORMATS, "coco_vid", refuse)
    with pytest.raises(InputError, match="data/gt: cannot be read: Permission denied"):
        read_set("coco_vid", tmp_path, "train")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_annotations_that_may_have_no_end_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            read_text(path)
