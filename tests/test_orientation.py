"""Labels on stored or on turned images, and sizes that differ between labels and images."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exif_images import turned, with_orientation, write_tiff, write_turned
from labelled_sets import LAYOUTS, read_notes, write_set
from test_evaluation import tiny_run, tool

from conftest import TRAINING_TREE, error_line
from rnndet.config import config_from_dict
from rnndet.data import frames
from rnndet.data.checks.run import check_dataset
from rnndet.data.formats import read_set
from rnndet.data.orientation import AS_SHOWN, AS_STORED, UNDECIDED, size_hint
from rnndet.data.preview import write_preview
from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord
from rnndet.data.writers.convert import convert
from rnndet.errors import InputError, RnndetError
from rnndet.evaluation.dataset_stats import measure
from rnndet.messages import numbered
from rnndet.training.run import run_training
from rnndet.video.exif import ImageHeader, read_header
from rnndet.video.image import read_image, write_image

STORED_HW = (40, 60)  # of the images; turned by a quarter they are 60 high and 40 wide
QUARTER, HALF = 6, 3  # EXIF orientations


def picture(size_hw=STORED_HW, box=(5, 8, 15, 20)):
    """Grey, with a white box x1 y1 x2 y2."""
    image = np.full((*size_hw, 3), 60, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def write_coco(root, *, size_hw, orientation, boxes=((5, 8, 15, 20),), stored_hw=STORED_HW):
    """One video of one picture for each box, in labels of `size_hw`."""
    tree = {"categories": [{"id": 1, "name": "car"}], "videos": [], "images": [], "annotations": []}
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        name = f"{number}.jpg"
        write_turned(root / name, picture(stored_hw), orientation)
        tree["videos"].append({"id": number, "name": f"v{number}"})
        tree["images"].append({
            "id": number, "video_id": number, "frame_id": 0, "file_name": name,
            "height": size_hw[0], "width": size_hw[1],
        })  # fmt: skip
        tree["annotations"].append({
            "id": number, "image_id": number, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
        })  # fmt: skip
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "train.json").write_text(json.dumps(tree))


def first_image(video):
    return next(iter(frames.iterate(video))).image


def white(image):
    """The box of the white pixels, x1 y1 x2 y2."""
    ys, xs = np.nonzero(image.min(-1) > 180)
    return [int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]


def found(root, **options):
    report = check_dataset("coco_vid", root, ("train",), options=options)
    return [str(finding) for finding in report.findings]


# headers of files


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_header_has_the_size_and_orientation_that_opencv_uses(tmp_path, suffix, orientation, order):
    file = tmp_path / f"a{suffix}"
    write_turned(file, picture(), orientation, order)
    header = read_header(file)
    assert header == ImageHeader(STORED_HW, orientation)
    assert read_image(file).shape[:2] == header.shown_hw
    assert read_image(file, as_stored=True).shape[:2] == header.stored_hw


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 8])
def test_image_is_read_as_shown_or_as_stored(tmp_path, orientation):
    write_turned(tmp_path / "a.png", picture(), orientation)
    assert np.array_equal(read_image(tmp_path / "a.png", as_stored=True), picture())
    assert np.array_equal(read_image(tmp_path / "a.png"), turned(picture(), orientation))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_images_without_exif_are_upright(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", picture())
    header = read_header(tmp_path / f"a{suffix}")
    assert header in (None, ImageHeader(STORED_HW, 1))


def test_broken_and_missing_files_have_no_header(tmp_path):
    write_turned(tmp_path / "a.jpg", picture(), QUARTER)
    data = (tmp_path / "a.jpg").read_bytes()
    for length in (0, 1, 2, 3, 5, 11, 13, 20, 30, 40, 45):
        (tmp_path / "b.jpg").write_bytes(data[:length])
        assert read_header(tmp_path / "b.jpg") is None
    assert read_header(tmp_path / "none.jpg") is None
    assert read_header(tmp_path) is None


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_beyond_the_standard_counts_as_upright(tmp_path, value):
    write_turned(tmp_path / "a.jpg", picture(), value)
    assert read_header(tmp_path / "a.jpg").orientation == 1
    assert read_image(tmp_path / "a.jpg").shape[:2] == STORED_HW


def test_tiff_with_an_orientation_is_not_read_as_stored(tmp_path):
    write_image(tmp_path / "a.tif", picture())
    assert read_image(tmp_path / "a.tif", as_stored=True).shape[:2] == STORED_HW
    write_tiff(tmp_path / "b.tif", orientation=HALF)
    assert read_header(tmp_path / "b.tif") == ImageHeader((2, 4), HALF)
    assert read_image(tmp_path / "b.tif").shape == (2, 4, 3)
    with pytest.raises(InputError, match=r"b\.tif: a TIFF with an orientation .* convert it"):
        read_image(tmp_path / "b.tif", as_stored=True)


# which pixels the labels are for


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_stated_size_decides_for_the_stored_image(tmp_path, orientation):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=orientation)
    videos, notes = read_notes("coco_vid", tmp_path, "train")
    (video,) = videos.videos
    assert video.as_stored and notes == [numbered(1, AS_STORED)]
    assert white(first_image(video)) == video.frames[0].target.boxes[0].tolist()
    assert white(frames.load(video, video.frames)[0]) == [5, 8, 15, 20]


def test_stated_size_decides_for_the_shown_image(tmp_path):
    shown = white(turned(picture(), QUARTER))
    write_coco(tmp_path, size_hw=STORED_HW[::-1], orientation=QUARTER, boxes=[shown])
    videos, notes = read_notes("coco_vid", tmp_path, "train")
    (video,) = videos.videos
    assert not video.as_stored and notes == [numbered(1, AS_SHOWN)]
    assert white(first_image(video)) == video.frames[0].target.boxes[0].tolist()


def test_images_that_do_not_tell_follow_those_of_the_set_that_do(tmp_path):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=QUARTER, boxes=[(5, 8, 15, 20)] * 2)
    write_turned(tmp_path / "2.jpg", picture(), HALF)
    videos, notes = read_notes("coco_vid", tmp_path, "train")
    assert [video.as_stored for video in videos.videos] == [True, True]
    assert notes == [numbered(2, AS_STORED)]
    assert white(first_image(videos.videos[1])) == [5, 8, 15, 20]


@pytest.mark.parametrize(("size_hw", "orientation"), [((40, 40), QUARTER), (STORED_HW, HALF)])
def test_images_whose_size_does_not_tell_are_turned_with_a_warning(
    tmp_path, caplog, size_hw, orientation
):
    write_coco(tmp_path, size_hw=size_hw, stored_hw=size_hw, orientation=orientation)
    problems = Problems()
    (video,) = read_set("coco_vid", tmp_path, "train", problems=problems).videos
    assert problems.warnings() == [numbered(1, UNDECIDED)] and not video.as_stored
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{tmp_path}: {numbered(1, UNDECIDED)}" in caplog.messages
    assert white(first_image(video)) == white(turned(picture(size_hw), orientation))


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("choice", ["stored", "shown"])
def test_option_decides_without_a_warning(tmp_path, caplog, choice, orientation):
    write_coco(tmp_path, size_hw=(40, 40), stored_hw=(40, 40), orientation=orientation)
    (video,) = read_set("coco_vid", tmp_path, "train", orientation=choice).videos
    image = picture((40, 40))
    if choice == "shown":
        image = read_image(tmp_path / "1.jpg")
        assert not np.array_equal(image, read_image(tmp_path / "1.jpg", as_stored=True))
    assert white(first_image(video)) == white(image)
    assert caplog.messages == []


def test_image_without_orientation_is_not_mentioned(tmp_path, caplog):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=1)
    assert read_notes("coco_vid", tmp_path, "train")[1] == [] == caplog.messages


# formats whose labels state a size
STATED = ["coco_vid", "imagenet_vid", "mot", "pascal_voc", "youtube_vis"]
every_layout = pytest.mark.parametrize("format", LAYOUTS)


def write_quarter_turned(format, root):
    """The small set; its images of 64x48 are tagged to be shown as 48x64."""
    write_set(format, root)
    for file in LAYOUTS[format].image_files(root, "v"):
        file.write_bytes(with_orientation(file.read_bytes(), QUARTER))


@every_layout
def test_every_format_reads_labels_of_stored_images(format, tmp_path):
    write_quarter_turned(format, tmp_path)
    layout = LAYOUTS[format]
    choice = {} if format in STATED else {"orientation": "stored"}
    (video,) = read_set(format, tmp_path, layout.split, **layout.options, **choice).videos
    assert (video.height, video.width, video.as_stored) == (48, 64, True)
    assert video.frames[1].target.boxes.tolist() == [[10.0, 8.0, 30.0, 20.0]]
    assert first_image(video).shape[:2] == (48, 64)


@pytest.mark.parametrize("format", sorted(LAYOUTS.keys() - set(STATED)))
def test_formats_that_state_no_size_take_that_of_the_shown_image(format, tmp_path, caplog):
    write_quarter_turned(format, tmp_path)
    layout = LAYOUTS[format]
    (video,) = read_set(format, tmp_path, layout.split, **layout.options).videos
    assert (video.height, video.width, video.as_stored) == (64, 48, False)
    assert first_image(video).shape[:2] == (64, 48)
    assert caplog.messages == [f"{tmp_path}: 3 {UNDECIDED}"]


@every_layout
def test_every_format_refuses_another_orientation(format, tmp_path):
    layout = LAYOUTS[format]
    write_set(format, tmp_path)
    with pytest.raises(RnndetError, match=r"orientation = 'left'"):
        read_set(format, tmp_path, layout.split, **layout.options, orientation="left")


def test_size_in_a_cvat_file_decides(tmp_path):
    write_quarter_turned("cvat_video", tmp_path)
    file = tmp_path / "train" / "v.xml"
    size = "<original_size><width>64</width><height>48</height></original_size>"
    file.write_text(file.read_text().replace("</task>", f"{size}</task>"))
    videos, notes = read_notes("cvat_video", tmp_path, "train")
    assert videos.videos[0].as_stored and notes == [numbered(3, AS_STORED)]
    with pytest.raises(InputError, match=r"labels images of 64x48, .* orientation=stored"):
        read_set("cvat_video", tmp_path, "train", orientation="shown")


def test_video_without_a_stated_size_does_not_follow_the_others(tmp_path, caplog):
    for name in ("a", "b"):
        for i in range(2):
            write_turned(tmp_path / name / f"{i}.jpg", picture(), QUARTER)
    tree = {
        "categories": [{"id": 1, "name": "car"}],
        "videos": [{"id": 1, "name": "a"}],
        "images": [{"id": i + 1, "video_id": 1, "frame_id": i, "file_name": f"a/{i}.jpg",
                    "height": STORED_HW[0], "width": STORED_HW[1]} for i in range(2)],
        "annotations": [],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(tree))
    (tmp_path / "b.txt").write_text("1,1,6,9,10,12,1,1,1\n")
    videos = read_set("labelled_folder", tmp_path, ".", classes=["car"]).videos
    assert [(v.height, v.width, v.as_stored) for v in videos] == [(40, 60, True), (60, 40, False)]
    assert [first_image(video).shape[:2] for video in videos] == [(40, 60), (60, 40)]
    assert f"{tmp_path}: 2 {UNDECIDED}" in caplog.messages


# sizes that differ


def write_video_of_two(root, size_hw):
    write_coco(root, size_hw=STORED_HW, orientation=1)
    write_image(root / "1.jpg", np.zeros((*size_hw, 3), np.uint8))


def test_another_size_stops_reading_frames_in_one_line(tmp_path):
    write_video_of_two(tmp_path, (20, 30))
    (video,) = read_set("coco_vid", tmp_path, "train").videos
    expected = (
        f"{tmp_path / '1.jpg'}: the image is 30x20, but its labels are for 60x40; correct the size "
        "in the labels, or use the images that were labelled"
    )
    for read in (
        lambda: first_image(video),
        lambda: frames.load(video, video.frames),
        lambda: frames.FrameStore("cpu", budget=0).load(video, video.frames),
        lambda: write_preview(video, ["car"], tmp_path / "preview"),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert str(error.value) == expected


def test_another_size_than_the_first_image_is_named_where_labels_state_none(tmp_path):
    write_video_of_two(tmp_path, (20, 30))
    (video,) = read_set("coco_vid", tmp_path, "train").videos
    with pytest.raises(InputError, match="it is that of the first image: give all images of a"):
        first_image(replace(video, states_size=False))


def test_wrong_orientation_is_named_with_the_option(tmp_path):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=QUARTER)
    (video,) = read_set("coco_vid", tmp_path, "train", orientation="shown").videos
    message = "its EXIF orientation is 6: set the option orientation=stored if the labels were made"
    with pytest.raises(InputError, match=f"is 40x60, .* for 60x40; {message}"):
        first_image(video)
    assert any(message in line for line in found(tmp_path, orientation="shown"))


def test_unlabelled_frames_may_have_any_size(tmp_path):
    for number in (1, 2):
        write_turned(tmp_path / f"{number}.jpg", picture(), number * 3)  # 3, 6
    videos = read_set("unlabelled", tmp_path, "train").videos
    assert [first_image(video).shape[:2] for video in videos] == [(40, 60), (60, 40)]
    other = replace(videos[0], height=10)  # the first of several frames had this size
    assert first_image(other).shape[:2] == frames.load(other, other.frames)[0].shape[:2] == (40, 60)
    with pytest.raises(RnndetError, match="orientation is unknown"):
        read_set("unlabelled", tmp_path, "train", orientation="stored")


def test_image_of_another_size_than_its_video_is_a_problem(coco_vid_root):
    path = coco_vid_root / "annotations" / "train.json"
    tree = json.loads(path.read_text())
    tree["images"][2]["width"] = 50
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match="image 3: is 50x64, but its video is 96x64"):
        read_set("coco_vid", coco_vid_root, "train")
    (video, _) = read_set("coco_vid", coco_vid_root, "train", skip_bad=True).videos
    assert len(video.frames) == 5


def test_check_counts_orientations(tmp_path):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=QUARTER, boxes=[(5, 8, 15, 20)] * 3)
    write_turned(tmp_path / "3.jpg", picture(), HALF)
    assert found(tmp_path) == [
        f"note: train: {numbered(3, AS_STORED)}",
        "note: train: 3 images have an EXIF orientation: 1 of 3, 2 of 6",
    ]


def test_check_repeats_the_warning(tmp_path):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=HALF)
    assert f"note: train: {numbered(1, UNDECIDED)}" in found(tmp_path)


# other users of the images


@pytest.mark.parametrize("to", ["coco_vid", "imagenet_vid", "mot"])
@pytest.mark.parametrize("choice", ["stored", "shown"])
@pytest.mark.parametrize("size_hw", [STORED_HW, (40, 40)])
def test_converted_set_has_the_same_boxes_on_the_same_pixels(tmp_path, to, choice, size_hw):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    image = picture(size_hw) if choice == "stored" else turned(picture(size_hw), QUARTER)
    write_coco(root, size_hw=image.shape[:2], stored_hw=size_hw, orientation=QUARTER,
               boxes=[white(image)])  # fmt: skip
    before = read_set("coco_vid", root, "train", orientation=choice)
    notes = convert(before, out, "train", to=to, images=True)
    if to == "coco_vid":
        assert notes == ["1 images with an EXIF orientation written anew, without it"]
    options = {"classes": ("car",)} if to == "imagenet_vid" else {}
    after = read_set(to, out, "train", **options)
    (x,), (y,) = before.videos, after.videos
    assert (x.height, x.width) == (y.height, y.width)
    assert torch.equal(x.frames[0].target.boxes, y.frames[0].target.boxes)
    assert white(first_image(y)) == x.frames[0].target.boxes[0].tolist()
    assert read_header(y.frames[0].image).orientation == 1


def test_conversion_without_images_names_the_option(tmp_path):
    write_coco(tmp_path, size_hw=(40, 40), stored_hw=(40, 40), orientation=QUARTER)
    videos = read_set("coco_vid", tmp_path, "train", orientation="stored")
    notes = convert(videos, tmp_path, "again", to="coco_vid", images=False)
    assert notes == ["the labels are for images as stored; read them with orientation=stored"]
    again = read_set("coco_vid", tmp_path, "again", orientation="stored")
    assert white(first_image(again.videos[0])) == [5, 8, 15, 20]


def test_stored_frames_keep_their_orientation_apart(tmp_path):
    write_coco(tmp_path, size_hw=(40, 40), stored_hw=(40, 40), orientation=QUARTER)
    store = frames.FrameStore("cpu", budget=10**9)
    for choice in ("stored", "shown"):
        (video,) = read_set("coco_vid", tmp_path, "train", orientation=choice).videos
        image = store.load(video, video.frames)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(image, frames.load(video, video.frames)[0])


def test_statistics_use_the_size_of_the_labels(tmp_path):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=QUARTER)
    assert measure(read_set("coco_vid", tmp_path, "train"))


def test_preview_draws_on_the_image_that_was_labelled(tmp_path):
    write_coco(tmp_path, size_hw=STORED_HW, orientation=QUARTER)
    (video,) = read_set("coco_vid", tmp_path, "train").videos
    assert write_preview(video, ["car"], tmp_path / "preview") == 1
    assert read_image(Path(tmp_path, "preview", "000000.jpg")).shape[:2] == STORED_HW


@pytest.mark.parametrize("workers", [0, 1])
def test_another_size_stops_training_in_one_line(coco_vid_root, tmp_path, workers):
    for file in coco_vid_root.glob("v*/*.png"):
        write_image(file, np.zeros((32, 48, 3), np.uint8))
    tree = TRAINING_TREE | {"data": {"train": [{"root": str(coco_vid_root)}]}}
    tree |= {"train": TRAINING_TREE["train"] | {"workers": workers}}
    config = config_from_dict(tree, where="test")
    with pytest.raises(InputError) as error:
        run_training(config, tmp_path / "run", device="cpu", quiet=True)
    text = r".*\d{6}\.png: the image is 48x32, but its labels are for 96x64; correct the size .*"
    assert re.fullmatch(text, str(error.value))


@pytest.mark.parametrize(
    ("path", "states_size", "hint"),
    [
        (None, False, "they state no size"), (None, True, "correct the size"),
        (Path("a.mp4"), False, "correct the size"), (Path("a.mp4"), True, "correct the size"),
    ],
)  # fmt: skip
def test_size_of_the_first_image_is_no_size_in_the_labels(path, states_size, hint):
    video = VideoRecord("a", 48, 64, None, (), path=path, states_size=states_size)
    assert size_hint(video).startswith(hint)


def test_another_size_stops_an_evaluation_with_exit_3(tmp_path, capsys):
    arguments = tiny_run(tmp_path)
    file = tmp_path / "data" / "two" / "1.png"
    write_image(file, np.zeros((32, 48, 3), np.uint8))
    assert tool().main(arguments) == 3
    assert error_line(capsys).endswith(
        f"{file}: the image is 48x32, but its labels are for 64x48; correct the size in the "
        "labels, or use the images that were labelled"
    )


def write_turned_video(path, degrees):
    """Eight frames of 64x48, which the metadata turn."""
    pytest.importorskip("av")
    from test_av_file import encode, turn

    turn(encode(path), degrees)


@pytest.mark.parametrize("cached", [False, True])
def test_turned_video_file_is_refused_with_what_to_do(tmp_path, cached):
    write_coco(tmp_path, size_hw=(48, 64), orientation=1)
    write_turned_video(tmp_path / "clip.mp4", 90)
    path = tmp_path / "annotations" / "train.json"
    tree = json.loads(path.read_text())
    tree["videos"][0]["file_name"] = "clip.mp4"
    path.write_text(json.dumps(tree))
    (video,) = read_set("coco_vid", tmp_path, "train").videos
    cache = tmp_path / "cache" if cached else None
    if cache is not None:
        frames.make_cache(video, cache)
    reason = "the image is 48x64, but its labels are for 64x48; "
    advice = "its metadata turn the video by 90 degrees: label the turned video, or take a copy"
    for read in (
        lambda: next(iter(frames.iterate(video, cache=cache))),
        lambda: frames.load(video, video.frames, cache=cache),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert reason + ("correct" if cached else advice) in str(error.value)
    lines = found(tmp_path)
    assert any(f"labels are for 64x48; {advice}" in line for line in lines)
    assert "note: train: 1 video files are turned by their metadata: 1 of 90" in lines


def test_cvat_labels_of_an_unturned_video_name_its_rotation(tmp_path):
    write_set("cvat_video", tmp_path, images=False)
    write_turned_video(tmp_path / "train" / "v.mp4", 270)
    file = tmp_path / "train" / "v.xml"
    size = "<original_size><width>64</width><height>48</height></original_size>"
    file.write_text(file.read_text().replace("</task>", f"{size}</task>"))
    with pytest.raises(InputError, match=r"of 64x48, .* have 48x64; its metadata turn .* by 270"):
        read_set("cvat_video", tmp_path, "train")
