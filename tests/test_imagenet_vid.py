"""Reader of ImageNet VID and DET."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from labelled_sets import read_notes

from rnndet.data.formats import read_set
from rnndet.data.problems import Problems
from rnndet.errors import InputError
from rnndet.video.image import write_image

SHEEP, BUS = "n02411705", "n02924116"


def thing(name=BUS, box=(4, 5, 13, 14), track="<trackid>7</trackid>"):
    corners = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object>{track}<name>{name}</name><bndbox>{corners}</bndbox></object>"


def annotation(*objects, width=48, height=32):
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def put(root, path, text, *, kind="VID"):
    """One frame: an image, and XML unless `text` is None."""
    image, xml = root / f"Data/{kind}/{path}.JPEG", root / f"Annotations/{kind}/{path}.xml"
    image.parent.mkdir(parents=True, exist_ok=True)
    write_image(image, np.zeros((32, 48, 3), np.uint8))
    if text is not None:
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text(text)


@pytest.fixture
def root(tmp_path):
    for number in range(3):
        put(
            tmp_path,
            f"val/a/{number:06d}",
            annotation(thing(), thing(SHEEP, track="<trackid>8</trackid>")),
        )
    for number in range(2):
        put(tmp_path, f"val/b/{number:06d}", annotation())
    return tmp_path


def load(root, split="val", **options):
    return read_set("imagenet_vid", root, split, **options)


def corrections(root, split="val", **options):
    return read_notes("imagenet_vid", root, split, **options)[1]


def edit(root, text, path="val/a/000001"):
    (root / f"Annotations/VID/{path}.xml").write_text(text)


def make_list(root, text, name="ImageSets/list.txt"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return Path(name).name


def summary(found):
    return {v.name: [frame.index for frame in v.frames] for v in found.videos}


# reading a split


def test_second_object_with_a_trackid_of_its_frame_has_no_identity(root):
    put(root, "val/c/000000", annotation(thing(), thing(box=(20, 5, 29, 14)), thing(track="")))
    problems = Problems()
    data = load(root, problems=problems)
    (target,) = (v.frames[0].target for v in data.videos if v.name.endswith("c"))
    assert target.ids.tolist() == [7, -1, -1]
    assert problems.doubtful == {"trackids that a frame has twice, read as unknown": 1}


def test_boxes_as_shares_of_the_image_are_noted(root):
    edit(root, annotation(thing(box=(0.1, 0.2, 0.5, 0.6))))
    assert any("box within 0..1" in line for line in corrections(root))


def test_folder_that_cannot_be_read_is_an_error(root, monkeypatch):
    def refuse(top, *, onerror, **_):
        onerror(PermissionError(13, "Permission denied", str(top)))
        return ()

    monkeypatch.setattr("os.walk", refuse)
    with pytest.raises(InputError, match="Data/VID/val: cannot be read: Permission denied"):
        read_set("imagenet_vid", root, "val")


def test_det_image_that_a_list_names_twice_is_counted(root):
    put(root, "train/x/y_1", annotation(), kind="DET")
    name = make_list(root, "train/x/y_1 1\ntrain/x/y_1 2\n")
    assert corrections(root, index=name) == ["1 duplicate frame in a list used once"]


def test_reads_all_frames_of_all_videos(root):
    found = load(root)
    assert summary(found) == {"a": [0, 1, 2], "b": [0, 1]}
    assert (found.videos[0].height, found.videos[0].width, found.videos[0].fps) == (32, 48, None)
    assert found.videos[0].frames[2].image == root / "Data/VID/val/a/000002.JPEG"


def test_thirty_classes_have_the_order_of_the_benchmark(root):
    found = load(root)
    assert len(found.classes) == 30
    assert found.classes == tuple(sorted(found.classes))
    names = [found.classes[label] for label in found.videos[0].frames[0].target.labels]
    assert names == ["bus", "sheep"]


def test_track_ids_are_identities(root):
    edit(root, annotation(thing(), thing(track="")))
    assert load(root).videos[0].frames[1].target.ids.tolist() == [7, -1]


def test_training_videos_lie_in_parts(tmp_path):
    put(tmp_path, "train/part_0000/a/000004", annotation(thing()))
    assert summary(load(tmp_path, "train")) == {"a": [4]}


def test_archive_folder_may_be_below_the_root(root, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    root.rename(above / "ILSVRC2015")
    assert len(load(above).videos) == 2


def test_two_archive_folders_are_refused(tmp_path):
    for name in ("ILSVRC2015", "ILSVRC2017"):
        put(tmp_path / name, "val/a/000000", annotation())
    with pytest.raises(InputError, match="exactly one folder ILSVRC"):
        load(tmp_path)


def test_test_split_is_unlabelled(root):
    put(root, "test/c/000000", None)
    video = load(root, "test").videos[0]
    assert (video.height, video.width, video.frames[0].target) == (32, 48, None)


def test_frames_without_xml_are_unlabelled_on_request(root):
    (root / "Annotations/VID/val/a/000000.xml").unlink()
    targets = [frame.target for frame in load(root, unlabelled=True).videos[0].frames]
    assert [target is None for target in targets] == [True, False, False]


def test_custom_classes_are_matched_by_name_and_by_wordnet_id(root):
    edit(
        root,
        annotation(
            thing("sheep"), thing(SHEEP, track="<trackid>8</trackid>"), thing("kite", track="")
        ),
    )
    shutil.rmtree(root / "Data/VID/val/b")
    shutil.rmtree(root / "Annotations/VID/val/b")
    found = load(root, classes=("kite", SHEEP), ignore_unknown=True)
    assert found.classes == ("kite", "sheep")
    assert found.videos[0].frames[1].target.labels.tolist() == [1, 1, 0]


def test_unknown_classes_are_counted_on_request(root):
    edit(root, annotation(thing("n00000001"), thing("n00000001")))
    notes = corrections(root, ignore_unknown=True)
    assert notes == ["2 objects of the unknown class 'n00000001' left out"]


# broken files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation/>", "lacks size/width"),
        (annotation(width="wide"), "size/width 'wide' is not a number"),
        (annotation(width="inf"), "size infx32 is not that of an image"),
        (annotation(width=49), "size 49x32, but 48x32 in the first frame"),
        (annotation(thing(box=(4, 5, "nan", 14))), r"object 1: box \(4, 5, nan, 15\)"),
        (annotation(thing(), thing(box=(9, 5, 4, 14))), "object 2: .* has a negative size"),
        (annotation(thing(box=("x", 0, 9, 5))), "bndbox/xmin 'x' is not a number"),
        (annotation("<object><name>n02924116</name></object>"), "lacks bndbox/xmin"),
        (annotation(thing(track="<trackid>one</trackid>")), "object 1: .*'one'"),
        (annotation(thing(track=f"<trackid>{10**30}</trackid>")), "is no identity"),
        (annotation(thing("n0")), r"class 'n0' is unknown \(1 object, the first in .*000001\.xml"),
    ],
)
def test_invalid_xml_is_reported(root, text, message):
    edit(root, text)
    with pytest.raises(InputError, match=rf"(?s)1 entry.*Annotations/VID.*{message}"):
        load(root)


def test_invalid_frame_is_left_out(root):
    edit(root, "<annotation>")
    problems = Problems()
    videos = load(root, skip_bad=True, problems=problems)
    assert summary(videos)["a"] == [0, 2] and len(problems) == 1


def test_missing_xml_and_missing_image_are_both_named(root):
    (root / "Annotations/VID/val/a/000000.xml").unlink()
    (root / "Data/VID/val/a/000002.JPEG").unlink()
    with pytest.raises(InputError, match=r"(?s)2 entries.*000000\.xml: no such.*000002\.JPEG: no"):
        load(root)


def test_empty_split_is_exit_code_2(root):
    with pytest.raises(InputError, match=r"Data/VID/train: no videos found; expected folders") as e:
        load(root, "train")
    assert e.value.exit_code == 2  # the wrong folder, rather than a broken file


def test_videos_of_the_same_name_are_reported(tmp_path):
    for part in ("p0", "p1"):
        put(tmp_path, f"train/{part}/a/000000", annotation())
    with pytest.raises(InputError, match="p1/a: another video"):
        load(tmp_path, "train")


# lists


def test_training_list_names_frames(root):
    index = make_list(root, "val/a 1 0 3\nval/a 1 2 3\nval/b 1 1 2\n")
    assert summary(load(root, index=index)) == {"a": [0, 2], "b": [1]}


def test_video_list_names_whole_videos(root):
    index = make_list(root, "val/b 1 0 2\nval/a 3 0 3\n", "Lists/videos.txt")
    assert summary(load(root, index=index)) == {"b": [0, 1], "a": [0, 1, 2]}


def test_list_of_one_line_names_a_whole_video(root):
    assert summary(load(root, index=make_list(root, "val/a 1 0 3\n"))) == {"a": [0, 1, 2]}


def test_frame_list_may_leave_out_the_split(root):
    index = make_list(root, "val/a/000001 1\nb/000000 2\n")
    assert summary(load(root, index=index)) == {"a": [1], "b": [0]}


def test_det_images_are_videos_of_one_frame(root):
    text = annotation(thing("n07739125", track=""), thing(SHEEP, track=""))
    put(root, "train/ILSVRC2013_train/n02411705/n02411705_9", text, kind="DET")
    index = make_list(root, "train/ILSVRC2013_train/n02411705/n02411705_9 1\n", "det.txt")
    found = load(root, "train", index=index)
    assert summary(found) == {"n02411705_9": [0]}
    assert found.videos[0].frames[0].target.ids.tolist() == [-1]
    notes = corrections(root, "train", index=index)
    assert notes == ["1 object of other classes in DET images left out"]


def test_repeated_lines_are_taken_once(root):
    index = make_list(root, "val/a/000001 1\nval/a/000001 2\n")
    assert summary(load(root, index=index)) == {"a": [1]}
    assert corrections(root, index=index) == ["1 duplicate frame in a list used once"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val/a 1 x 3", "line 2: .*no line of a known kind"),
        ("val/a 1 0 99999999999", "line 2: .*no line of a known kind"),
        ("val/a 1 0", "line 2: .*no line of a known kind"),
        ("val/a", "line 2: 1 field; expected 2"),
        ("../a 1 0 3", "line 2: '../a' lies outside"),
        ("val/../../../a/000000 1", "line 2: .*lies outside"),
        ("/val/a/000000 1", "line 2: .*lies outside"),
        ("val/a/000009 1", r"000009\.JPEG: no such image"),
    ],
)
def test_invalid_line_of_a_list_is_reported(root, line, message):
    index = make_list(root, f"val/b/000000 1\n{line}\n")
    with pytest.raises(InputError, match=message):
        load(root, index=index)


def test_invalid_line_does_not_change_the_kind_of_a_list(root):
    index = make_list(root, "val/a 1 0 3\nval/a 1\nval/a 1 2 3\nval/a 1 1\n")
    assert summary(load(root, skip_bad=True, index=index)) == {"a": [0, 2]}


def test_missing_list_is_named(root):
    with pytest.raises(InputError, match=r"no list 'nothing\.txt'"):
        load(root, index="nothing.txt")
