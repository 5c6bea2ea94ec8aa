"""Reader of YOLO text files: layouts, data.yaml, rows."""

import os

import pytest
from labelled_sets import read_notes, write_images

from rnndet.data.formats import read_set
from rnndet.data.formats.data_yaml import DataYaml
from rnndet.data.problems import Problems
from rnndet.errors import InputError

BOX = f"{20 / 64} {14 / 48} {20 / 64} {12 / 48}"  # edges 10 8 30 20
EDGES = pytest.approx([10, 8, 30, 20], abs=1e-5)


def put(root, path, *rows, images="images/train", labels="labels/train"):
    write_images(root / images / f"{path}.jpg")
    file = root / labels / f"{path}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{row}\n" for row in rows))


def load(root, split="train", **options):
    return read_set("yolo", root, split, **options)


def summary(found):
    return {video.name: [frame.index for frame in video.frames] for video in found.videos}


def rows_of(root, *rows, yaml="names: [car, dog]", **options):
    """The target of a single image."""
    put(root, "a1", *rows)
    (root / "data.yaml").write_text(yaml)
    return load(root, **options).videos[0].frames[0].target


# layouts


@pytest.mark.parametrize(
    ("images", "labels", "yaml"),
    [
        ("images/train", "labels/train", "train: images/train"),
        ("images/train", "labels/train", "path: /home/me/data\ntrain: images/train"),
        ("images/train", "labels/train", "path: ../datasets\ntrain: images/train"),
        ("sub/images/train", "sub/labels/train", "path: ./sub\ntrain: images/train"),
        ("images/train", "labels/train", ""),
        ("train/images", "train/labels", "train: ../train/images"),
        ("train/images", "train/labels", "train: ['../train/images']"),
        ("train/images", "train/labels", ""),
        ("train", "train", ""),
        ("obj_train_data", "obj_train_data", ""),
        ("images/images/train", "images/labels/train", "train: images/images/train"),
    ],
)
def test_images_and_labels_of_a_layout_are_found(tmp_path, images, labels, yaml):
    for number in (1, 2):
        put(tmp_path, f"v/{number}", f"0 {BOX}", images=images, labels=labels)
    (tmp_path / "data.yaml").write_text(f"{yaml}\nnames: [car]\n")
    found = load(tmp_path)
    assert summary(found) == {"v": [1, 2]} and found.classes == ("car",)
    assert found.videos[0].frames[1].image == tmp_path / images / "v/2.jpg"
    assert found.videos[0].frames[1].target.boxes[0].tolist() == EDGES


@pytest.mark.parametrize("prefix", ["", "./", "data/"])
def test_split_may_be_a_list_of_images(tmp_path, prefix):
    for number in range(3):
        put(tmp_path, f"v/{number}", f"0 {BOX}")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [car]\n")
    (tmp_path / "train.txt").write_text(
        "".join(f"{prefix}images/train/v/{n}.jpg\n" for n in (2, 0))
    )
    assert summary(load(tmp_path)) == {"v": [0, 2]}
    (tmp_path / "train.txt").write_text("images/train/v/9.jpg\n")
    with pytest.raises(InputError, match=r"train\.txt: line 1: there is no image .*9\.jpg"):
        load(tmp_path)


@pytest.mark.parametrize("yaml", ["path: coco8\ntrain: train.txt", "train: coco8/train.txt"])
@pytest.mark.parametrize("prefix", ["", "./", "../coco8/", "coco8/", "{root}/coco8/"])
def test_list_may_count_from_its_own_folder_from_the_root_or_be_absolute(tmp_path, yaml, prefix):
    for number in range(2):
        put(tmp_path, f"v/{number}", f"0 {BOX}", images="coco8/images/train",
            labels="coco8/labels/train")  # fmt: skip
    (tmp_path / "data.yaml").write_text(f"{yaml}\nnames: [car]\n")
    prefix = prefix.format(root=tmp_path)
    (tmp_path / "coco8/train.txt").write_text(f"{prefix}images/train/v/0.jpg\n")
    found = load(tmp_path)
    assert summary(found) == {"v": [0]}
    assert found.videos[0].frames[0].target.boxes[0].tolist() == EDGES


def test_line_that_begins_with_a_dot_is_beside_the_list_before_the_root(tmp_path):
    for place in ("", "sub/"):
        put(tmp_path, "v/0", f"0 {BOX}", images=f"{place}images/train",
            labels=f"{place}labels/train")  # fmt: skip
    (tmp_path / "data.yaml").write_text("train: sub/train.txt\nnames: [car]\n")
    for prefix, place in (("./", "sub/"), ("", "")):
        (tmp_path / "sub/train.txt").write_text(f"{prefix}images/train/v/0.jpg\n")
        image = load(tmp_path).videos[0].frames[0].image
        assert image == tmp_path / f"{place}images/train/v/0.jpg"


@pytest.mark.parametrize("path", ["", "path: sub\n"])
def test_place_may_be_absolute_in_the_root(tmp_path, path):
    put(tmp_path, "v1", f"0 {BOX}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "data.yaml").write_text(f"{path}train: {tmp_path}/images/train\nnames: [car]\n")
    assert summary(load(tmp_path)) == {"v": [1]}


def test_split_may_be_several_folders(tmp_path):
    put(tmp_path, "v1", f"0 {BOX}", images="a/images", labels="a/labels")
    put(tmp_path, "v1", f"0 {BOX}", images="b/images", labels="b/labels")
    (tmp_path / "data.yaml").write_text("train:\n- a/images\n- b/images\nnames: [car]\n")
    assert summary(load(tmp_path)) == {"v": [1], "b/images/v": [1]}


@pytest.mark.parametrize("folder", ["valid", "val"])
def test_val_may_be_called_valid(tmp_path, folder):
    put(tmp_path, "v1", f"0 {BOX}", images=f"{folder}/images", labels=f"{folder}/labels")
    assert summary(load(tmp_path, "val", classes=["car"])) == {"v": [1]}


@pytest.mark.parametrize("place", ["/etc", "images/../../x"])
def test_place_outside_is_refused(tmp_path, place):
    put(tmp_path, "v1", f"0 {BOX}")
    (tmp_path / "data.yaml").write_text(f"train: {place}\nnames: [car]\n")
    with pytest.raises(InputError, match=r"data\.yaml: .* outside"):
        load(tmp_path)
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [car]\n")
    (tmp_path / "train.txt").write_text(f"{place}/a.jpg\n")
    with pytest.raises(InputError, match=r"train\.txt: line 1: .* outside"):
        load(tmp_path)


def test_place_that_is_missing_is_named(tmp_path):
    put(tmp_path, "v1", f"0 {BOX}")
    (tmp_path / "data.yaml").write_text("train: ../images/trian\nnames: [car]\n")
    with pytest.raises(InputError, match=r"data\.yaml: names \.\./images/trian, but there is no"):
        load(tmp_path)


def test_folder_without_labels_says_where_they_are_expected(tmp_path):
    write_images(tmp_path / "images/train/v1.jpg")
    with pytest.raises(InputError, match=r"expected labels such as .*labels/train/v1\.txt"):
        load(tmp_path, classes=["car"])


def test_image_without_labels_is_a_frame_without_objects(tmp_path):
    put(tmp_path, "v1", f"0 {BOX}")
    write_images(tmp_path / "images/train/v2.jpg")
    found, notes = read_notes("yolo", tmp_path, "train", classes=["car"])
    assert [len(frame.target) for frame in found.videos[0].frames] == [1, 0]
    assert notes == ["1 image without a text file taken as empty"]


def test_stills_may_have_sizes_of_their_own(tmp_path, monkeypatch):
    put(tmp_path, "v1", f"0 {BOX}")
    monkeypatch.setattr("labelled_sets.SIZE_HW", (96, 32))
    put(tmp_path, "v2", f"0 {BOX}")
    videos = load(tmp_path, classes=["car"], pictures="stills").videos
    assert [(video.height, video.width) for video in videos] == [(48, 64), (96, 32)]
    assert videos[1].frames[0].target.boxes[0].tolist() == pytest.approx([5, 16, 15, 40])


@pytest.mark.parametrize("size_hw", [(96, 32), (48, 32), (96, 64)])
def test_images_of_other_sizes_are_no_frames_of_a_video(tmp_path, monkeypatch, size_hw):
    """As in a folder of numbered photographs; one problem for all of them."""
    for number in (1, 2):
        put(tmp_path, str(number), f"0 {BOX}")
    monkeypatch.setattr("labelled_sets.SIZE_HW", size_hw)
    for number in (3, 4, 5):
        put(tmp_path, str(number), f"0 {BOX}")
    problems = Problems()
    found = load(tmp_path, classes=["car"], skip_bad=True, problems=problems)
    assert summary(found) == {"images": [1, 2]}
    (problem,) = problems.found
    assert problem.where.endswith("3.jpg")
    size = f"is {size_hw[1]}x{size_hw[0]}, but the first image of the video images is 64x48"
    assert f"{size}, as 2 of 5" in problem.reason
    assert 'pictures = "stills"' in problem.reason


def test_list_may_name_images_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    put(tmp_path, name, f"0 {BOX}")
    (tmp_path / "train.txt").write_bytes(b"images/train/caf\xe9.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [car]\n")
    (frame,) = load(tmp_path).videos[0].frames
    assert frame.image == tmp_path / "images/train" / f"{name}.jpg"
    assert len(frame.target) == 1


# rows


def test_identity_is_the_sixth_field(tmp_path):
    assert rows_of(tmp_path, f"0 {BOX} 7", f"1 {BOX}").ids.tolist() == [7, -1]


def test_polygon_is_the_box_around_it_and_counted(tmp_path):
    put(tmp_path, "a1", f"1 {10 / 64} 0.25 {30 / 64} {8 / 48} 0.25 {20 / 48}")
    found, notes = read_notes("yolo", tmp_path, "train", classes=["car", "dog"])
    target = found.videos[0].frames[0].target
    assert target.boxes[0].tolist() == EDGES and target.labels.tolist() == [1]
    assert notes == ["1 polygon read as boxes"]


def test_key_points_are_not_read(tmp_path):
    yaml = "kpt_shape: [1, 3]\nnames: [car]"
    assert rows_of(tmp_path, f"0 {BOX} 0.9 0.9 2", yaml=yaml).boxes[0].tolist() == EDGES


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.1", "4 fields; expected 5"),
        ("car 0.5 0.5 0.1 0.1", "a field is not a number"),
        ("0 0.5 0.5 x 0.1", "a field is not a number"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is unknown; expected 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is unknown"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is unknown"),
        ("0 32 24 20 12", "not in shares of the image"),
        ("0 0.5 0.5 0.1 0.1 0.87", "the sixth field 0.87 is no identity"),
        ("0 0.5 0.5 0.1 0.1 0.87 12", "seven fields with an identity"),
        ("0 0.5 0.5 0.1 0.1 0.8 0.9 0.7", "7 numbers are no polygon"),
    ],
)
def test_row_that_cannot_be_used_is_named_with_its_line(tmp_path, row, message):
    with pytest.raises(InputError, match=rf"a1\.txt: line 2: {message}|line 2: .*{message}"):
        rows_of(tmp_path, f"0 {BOX}", row)
    assert len(rows_of(tmp_path, f"0 {BOX}", row, skip_bad=True)) == 1


def test_class_may_be_written_with_decimals(tmp_path):
    assert rows_of(tmp_path, f"1.0 {BOX}").labels.tolist() == [1]


# names of classes


@pytest.mark.parametrize("file", ["classes.txt", "obj.names"])
def test_names_are_lines_of_a_file_without_data_yaml(tmp_path, file):
    put(tmp_path, "a1", f"1 {BOX}")
    with pytest.raises(InputError, match=r"no names of the classes; expected names in data\.yaml"):
        load(tmp_path)
    (tmp_path / file).write_text("car\n\nmy dog\n")
    assert load(tmp_path).classes == ("car", "my dog")
    assert load(tmp_path, classes=["a", "b"]).classes == ("a", "b")


def test_names_may_lie_beside_the_labels(tmp_path):
    """As labelImg writes them."""
    for path in ("a/1", "b/1"):
        put(tmp_path, path, f"1 {BOX}", images="train", labels="train")
        (tmp_path / "train" / path).with_name("classes.txt").write_text("car\ndog\n")
    assert load(tmp_path).classes == ("car", "dog")
    (tmp_path / "train/b/classes.txt").write_text("dog\ncar\n")
    with pytest.raises(InputError, match=r"b/classes\.txt: .* other classes than .*a/classes\.txt"):
        load(tmp_path)
    (tmp_path / "classes.txt").write_text("bus\nvan\n")
    assert load(tmp_path).classes == ("bus", "van")


@pytest.mark.parametrize(
    "text",
    [
        "names: [car, my dog]",
        "names: ['car', \"my dog\",]",
        "names:\n  - car # the first\n  - 'my dog'",
        "names:\n- car\n- my dog\nnc: 2",
        "names:\n  0: car\n  1: my dog",
        "names:\n  1: my dog\n  0: car",
        "names: {0: car, 1: 'my dog'}",
        "names: ['car',\n  'my dog']",
        "names: [\n'car',\n'my dog'\n]\nnc: 2",
        "\ufeff# made by hand\n---\nnc: 2\nnames: [car, my dog]\nroboflow:\n  version: 4\n",
        "download: |\n  import os\n  print('a: b')\nnames: [car, my dog]",
    ],
)
def test_names_of_data_yaml_are_read_in_every_form(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    assert DataYaml(tmp_path / "data.yaml").texts("names") == ["car", "my dog"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: ['a, b', \"c # d\", 'it''s', dog's]", ["a, b", "c # d", "it's", "dog's"]),
        ('names:\n  0: "a: b"\n  1: c', ["a: b", "c"]),
        ('"names": [a]', ["a"]),
        ("names: a", ["a"]),
        ("names: []", []),
        ("nc: 1", []),
        ("names:\nnc: 0", []),
    ],
)
def test_quotes_keep_commas_and_signs(tmp_path, text, names):
    (tmp_path / "data.yaml").write_text(text)
    assert DataYaml(tmp_path / "data.yaml").texts("names") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected `names:`"),
        ("car", r"line 1: 'car' is no `key: value`"),
        ("nc: 1\n]", "line 2"),
        ("names: [a, [b]]", "names: expected text, a list"),
        ("names: [a, b]c]", "names: expected text, a list"),
        ("names: [a, b", "names: expected text, a list"),
        ("names: *other", "names: expected text, a list"),
        ("names:\n  - a\n  b: c", "names: expected text, a list"),
        ("names:\n  a\n  b", "names: expected text, a list"),
        ("names: ['a]", "names: expected text, a list"),
        ("names: {1: a, 2: b}", "names: expected the numbers from 0 on"),
        ("names: {0: a, 00: b}", "names: expected the numbers from 0 on"),
        ("names: {a: b}", "names: expected the numbers from 0 on"),
    ],
)
def test_data_yaml_that_cannot_be_read_is_named(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"data\.yaml: {message}"):
        DataYaml(tmp_path / "data.yaml").texts("names")


def test_same_number_of_a_frame_from_an_augmentation_is_a_problem(tmp_path):
    for copy in ("0a", "0b"):
        put(tmp_path, f"v_mp4-3_jpg.rf.{copy}", f"0 {BOX}")
    with pytest.raises(InputError, match="is frame 3 of the video v_mp4"):
        load(tmp_path, classes=["car"])
    assert len(load(tmp_path, classes=["car"], pictures="stills").videos) == 2


def test_labels_that_cannot_be_read_leave_the_other_frames(tmp_path):
    for number in range(3):
        put(tmp_path, f"v{number}", f"0 {BOX}")
    (tmp_path / "labels/train/v1.txt").write_bytes(b"\xff\xfe")
    problems = Problems()
    found = load(tmp_path, classes=["car"], skip_bad=True, problems=problems)
    assert summary(found) == {"v": [0, 2]}
    assert "v1.txt" in problems.found[0].where
