"""Every export has the numbers of detections.jsonl, in a form that its readers accept."""

import contextlib
import csv
import io
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from rnndet.data.formats import read_set
from rnndet.errors import OutputError, RnndetError
from rnndet.inference.counting import Regions
from rnndet.inference.writers import EXPORTS, export_names
from rnndet.inference.writers.base import ExportedVideo
from rnndet.structures import Counts, Detections, Frame, FrameResult, LineCount, VideoInfo
from rnndet.video.image import read_image
from rnndet.video.sink import VideoSink, describe, describe_result
from rnndet.video.sources.base import safe_name
from rnndet.video.sources.open import open_source

INSTALLED = [
    pytest.param(name, marks=pytest.mark.skipif(
        name == "parquet" and find_spec("pyarrow") is None, reason="needs pyarrow"
    ))
    for name in EXPORTS
]  # fmt: skip
CLASSES = ("bird", 'a <b> & "c"')
SIZE_HW = (64, 96)
LENGTH = 8

# x1 y1 x2 y2 score label id, by frame. Track 1 is away in frame 3, id 0 has no track, nothing is
# in frames 4 and 7, track 2 is called bird once.
FOUND = {
    0: [(10.123, 20, 30.5, 40, 0.9, 0, 1), (50, 5, 70.25, 25, 0.51, 1, 2)],
    1: [(12, 20, 32, 40, 0.8, 0, 1), (51, 5, 71, 25, 0.6, 0, 2), (80, 50, 96, 64, 0.3, 1, 0)],
    2: [(14, 21, 34, 41, 0.85, 0, 1), (52, 5, 72, 25, 0.7, 1, 2)],
    3: [(53, 5, 73, 25, 0.7, 1, 2), (1, 1, 9, 9, 0.31, 0, 0)],
    5: [(20, 22, 40, 42, 0.77, 0, 1)],
    6: [(22, 22, 42, 42, 0.77, 0, 1)],
}
PREDICTED = {3: [(16, 21, 36, 41, 0.8, 0, 1)]}


def detections(rows: list[tuple]) -> Detections:
    table = np.array([row[:5] for row in rows], np.float32).reshape(-1, 5)
    labels, ids = (np.array([row[k] for row in rows], np.int64) for k in (5, 6))
    return Detections(table[:, :4], table[:, 4], labels, ids)


def frame_image(index: int) -> np.ndarray:
    image = np.full((*SIZE_HW, 3), 90, np.uint8)
    image[20:40, 10 + 2 * index : 30 + 2 * index] = (200, 60, 30)
    return image


def results(*, stride: int = 1) -> list[FrameResult]:
    made = []
    for index in range(0, LENGTH, stride):
        found = detections(FOUND.get(index, []))
        labels = np.where(found.ids == 2, 1, found.labels)
        smoothed = Detections(found.boxes, found.scores, labels, found.ids)
        frame = Frame(frame_image(index), index, index / 25)
        predicted = detections(PREDICTED.get(index, []))
        made.append(FrameResult(frame, found, smoothed=smoothed, predicted=predicted))
    return made


def write(name: str, folder: Path, shown: list[FrameResult]) -> None:
    export = EXPORTS[name](folder)
    info = VideoInfo("clip", str(folder / "clip.mp4"), *SIZE_HW[::-1], Fraction(25), LENGTH)
    export.begin(ExportedVideo(info, SIZE_HW, CLASSES))
    for result in shown:
        export.write(result, frame_image(0) if export.needs_image else None)
    export.close()


@pytest.fixture
def video(tmp_path) -> Path:
    """The video that the results are of, in a folder of its own."""
    path = tmp_path / "set" / "clip.mp4"
    with VideoSink(path, size_hw=SIZE_HW, fps=25) as sink:
        for index in range(LENGTH):
            sink.write(frame_image(index))
    return path


def boxes_of(record) -> dict[int, list[tuple]]:
    """Frame -> sorted (class, id, box) of a reader's result."""
    return {
        frame.index: sorted(
            (label, track, tuple(round(v, 2) for v in box))
            for box, label, track in zip(
                frame.target.boxes.tolist(),
                frame.target.labels.tolist(),
                frame.target.ids.tolist(),
                strict=True,
            )
        )
        for frame in record.frames
    }


def written(shown: list[FrameResult], *, no_track: int) -> dict[int, list[tuple]]:
    """The same of the results, as detections.jsonl has them."""
    return {
        result.frame.index: sorted(
            (CLASSES.index(entry["label"]), entry.get("id", no_track), tuple(entry["box"]))
            for entry in describe(result.detections, CLASSES)
        )
        for result in shown
    }


def test_mot_rows_are_read_back_by_the_mot_reader(tmp_path, video):
    write("mot", tmp_path, results())
    sequence = tmp_path / "mot" / "val" / "clip"
    (sequence / "gt").mkdir(parents=True)
    shutil.copy(video, sequence / "clip.mp4")
    shutil.copy(tmp_path / "mot.txt", sequence / "gt" / "gt.txt")
    shutil.copy(tmp_path / "mot_labels.txt", sequence / "gt" / "labels.txt")
    (sequence / "seqinfo.ini").write_text(
        f"[Sequence]\nseqLength={LENGTH}\nimWidth={SIZE_HW[1]}\nimHeight={SIZE_HW[0]}\n"
    )
    data = read_set("mot", tmp_path / "mot", "val")
    assert data.classes == CLASSES
    assert boxes_of(data.videos[0]) == written(results(), no_track=-1)


def test_mot_rows_beside_their_video_are_a_labelled_folder(tmp_path, video):
    write("mot", tmp_path, results())
    shutil.copy(tmp_path / "mot.txt", video.with_suffix(".txt"))
    data = read_set("labelled_folder", video.parent, ".", classes=list(CLASSES))
    assert boxes_of(data.videos[0]) == written(results(), no_track=-1)


def test_mot_rows_have_the_columns_of_the_challenge(tmp_path):
    write("mot", tmp_path, results())
    first = (tmp_path / "mot.txt").read_text().splitlines()[0]
    assert first == "1,1,11.12,21.00,20.38,20.00,0.9000,1,-1"


def test_cvat_is_read_back_with_tracks_gaps_and_empty_frames(tmp_path, video):
    shown = results()
    write("cvat", tmp_path, shown)
    shutil.copy(tmp_path / "cvat.xml", video.with_suffix(".xml"))
    data = read_set("cvat_video", video.parent, ".")
    assert data.classes == CLASSES
    expected = {index: [] for index in range(LENGTH)}
    singles = 3  # ids after 1 and 2
    for result in shown:
        for entry in describe_result(result, CLASSES):
            track = entry.get("id", singles)
            singles += "id" not in entry
            label = {1: 0, 2: 1}.get(track, CLASSES.index(entry["label"]))  # one class a track
            expected[result.frame.index].append((label, track, tuple(entry["box"])))
    assert boxes_of(data.videos[0]) == {k: sorted(v) for k, v in expected.items()}
    assert (tmp_path / "cvat.xml").read_text().count('occluded="1"') == 1


def test_cvat_of_every_second_frame_is_a_task_of_these_frames(tmp_path, video):
    write("cvat", tmp_path, results(stride=2))
    shutil.copy(tmp_path / "cvat.xml", video.with_suffix(".xml"))
    (record,) = read_set("cvat_video", video.parent, ".").videos
    found = {index: [row[1] for row in rows] for index, rows in boxes_of(record).items()}
    assert found == {0: [1, 2], 2: [1, 2], 4: [], 6: [1]}


def test_coco_results_load_beside_their_images(tmp_path):
    shown = results()
    write("coco", tmp_path, shown)
    with contextlib.redirect_stdout(io.StringIO()):
        images = COCO(str(tmp_path / "coco_images.json"))
        found = images.loadRes(str(tmp_path / "coco.json"))
    assert [image["frame_id"] for image in images.loadImgs(images.getImgIds())] == list(range(8))
    assert [c["name"] for c in images.loadCats(images.getCatIds())] == list(CLASSES)
    for result in shown:
        rows = found.loadAnns(found.getAnnIds(imgIds=[result.frame.index + 1]))
        assert [(row["score"], row["category_id"], row.get("instance_id")) for row in rows] == [
            (entry["score"], CLASSES.index(entry["label"]) + 1, entry.get("id"))
            for entry in describe(result.detections, CLASSES)
        ]


def test_coco_results_in_their_images_file_are_cocovid(tmp_path, video):
    write("coco", tmp_path, results())
    tree = json.loads((tmp_path / "coco_images.json").read_text())
    found = json.loads((tmp_path / "coco.json").read_text())
    tree["annotations"] = [entry | {"id": k} for k, entry in enumerate(found, start=1)]
    (video.parent / "annotations").mkdir()
    (video.parent / "annotations" / "val.json").write_text(json.dumps(tree))
    data = read_set("coco_vid", video.parent, "val")
    assert boxes_of(data.videos[0]) == written(results(), no_track=-1)


def test_csv_has_a_row_for_each_box_of_the_json(tmp_path):
    shown = results()
    write("csv", tmp_path, shown)
    with (tmp_path / "detections.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = [
        (result.frame.index, entry)
        for result in shown
        for entry in describe_result(result, CLASSES)
    ]
    assert len(rows) == len(expected) == 12
    for row, (index, entry) in zip(rows, expected, strict=True):
        assert (int(row["frame"]), float(row["time"])) == (index, index / 25)
        assert row["id"] == str(entry.get("id", ""))
        assert row["label"] == entry["label"]
        assert row["track_label"] == entry.get("track_label", entry["label"])
        assert float(row["score"]) == entry["score"]
        assert [float(row[edge]) for edge in ("x1", "y1", "x2", "y2")] == entry["box"]
        assert row["predicted"] == str(int("predicted" in entry))


def test_crops_are_the_pixels_of_each_box_by_class(tmp_path):
    write("crops", tmp_path, results())
    files = sorted(p.relative_to(tmp_path / "crops").as_posix() for p in tmp_path.rglob("*.jpg"))
    assert len(files) == 11  # no predicted box
    assert files[0] == f"{safe_name(CLASSES[1])}/000000_2_id2.jpg"
    crop = read_image(tmp_path / "crops" / "bird" / "000001_1_id1.jpg")
    assert crop.shape == (20, 20, 3)
    assert np.abs(crop.mean((0, 1)) - (200, 60, 30)).max() < 12
    assert (tmp_path / "crops" / "bird" / "000003_2.jpg").exists()


def test_crop_of_a_box_beyond_the_edge_is_clipped_to_the_image(tmp_path):
    found = detections([(-5, 60, 10.5, 70, 0.9, 0, 0), (200, 10, 210, 20, 0.8, 0, 0)])
    write("crops", tmp_path, [FrameResult(Frame(frame_image(0), 0, 0.0), found)])
    (file,) = tmp_path.rglob("*.jpg")
    assert read_image(file).shape == (4, 11, 3)


def test_frames_are_the_annotated_images(tmp_path):
    write("frames", tmp_path, results(stride=3))
    names = [path.name for path in sorted((tmp_path / "frames").iterdir())]
    assert names == [f"annotated_{index:06d}.jpg" for index in (0, 3, 6)]
    assert read_image(tmp_path / "frames" / names[0]).shape == (*SIZE_HW, 3)


def test_video_has_every_frame_at_its_time(tmp_path):
    pytest.importorskip("av")
    write("video", tmp_path, results(stride=3))
    with open_source(tmp_path / "annotated.mp4") as source:
        assert [round(frame.time, 3) for frame in source] == [0.0, 0.12, 0.24]


@pytest.mark.parametrize("name", INSTALLED)
def test_aborted_export_leaves_nothing_and_an_old_one_as_it_was(tmp_path, name):
    write(name, tmp_path, results())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    export = EXPORTS[name](tmp_path)
    info = VideoInfo("clip", "clip.mp4", 96, 64, None, None)
    export.begin(ExportedVideo(info, SIZE_HW, CLASSES))
    export.write(results()[0], frame_image(0))
    assert len(list(tmp_path.rglob("*"))) > len(before)
    export.abort()
    export.abort()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("name", INSTALLED)
def test_export_without_boxes_is_complete(tmp_path, name):
    empty = FrameResult(Frame(frame_image(0), 0, 0.0), Detections.empty())
    write(name, tmp_path, [empty])
    assert all(path.exists() for path in EXPORTS[name](tmp_path).paths)


@pytest.mark.parametrize("name", ["crops", "frames"])
def test_folder_with_other_files_is_not_replaced(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "000001.jpg").write_bytes(b"of the user")
    export = EXPORTS[name](tmp_path)
    with pytest.raises(OutputError, match="would be lost"):
        export.check_old()
    export.remove_old()
    assert (tmp_path / name / "000001.jpg").exists()


@pytest.mark.parametrize("name", INSTALLED)
def test_place_that_cannot_be_written_is_an_output_error(tmp_path, name):
    (tmp_path / "file").write_text("")
    export = EXPORTS[name](tmp_path / "file")
    info = VideoInfo("clip", "clip.mp4", 96, 64, None, None)
    with pytest.raises(OutputError, match="cannot be"):
        export.begin(ExportedVideo(info, SIZE_HW, CLASSES))
    export.abort()


def test_names_come_by_commas_or_repeated_and_count_once():
    assert export_names(["video, mot", "mot", "csv,"]) == ("video", "mot", "csv")
    with pytest.raises(RnndetError, match="cvat"):
        export_names(["mott"])


def test_yolo_has_a_file_for_each_frame_with_normalised_rows(tmp_path):
    write("yolo", tmp_path, results())
    folder = tmp_path / "yolo"
    frames = [f"{index:06d}.txt" for index in range(LENGTH)]
    assert sorted(path.name for path in folder.iterdir()) == [*frames, "classes.txt"]
    assert (folder / "classes.txt").read_text().splitlines() == list(CLASSES)
    rows = [line.split(" ") for line in (folder / frames[1]).read_text().splitlines()]
    # the 20 x 20 box at 12, 20 in an image of 96 x 64; the last box has no track
    assert rows[0] == ["0", "0.229167", "0.468750", "0.208333", "0.312500", "0.8000", "1"]
    assert [(row[0], *row[5:]) for row in rows] == [
        ("0", "0.8000", "1"), ("0", "0.6000", "2"), ("1", "0.3000", "0"),
    ]  # fmt: skip
    assert [(folder / frames[index]).read_text() for index in (4, 7)] == ["", ""]


def test_yolo_boxes_are_cut_at_the_edges_of_the_frame(tmp_path):
    shown = FrameResult(Frame(frame_image(0), 0, 0.0), detections([(-48, 0, 48, 96, 0.9, 0, 1)]))
    write("yolo", tmp_path, [shown])
    row = (tmp_path / "yolo" / "000000.txt").read_text()
    assert row == "0 0.250000 0.500000 0.500000 1.000000 0.9000 1\n"


def test_yolo_without_a_tracker_has_id_0(tmp_path):
    plain = [replace(one, detections=replace(one.detections, ids=None)) for one in results()]
    write("yolo", tmp_path, [replace(one, smoothed=None, predicted=None) for one in plain])
    rows = (tmp_path / "yolo" / "000000.txt").read_text().splitlines()
    assert [row.split(" ")[-1] for row in rows] == ["0", "0"]


def test_parquet_without_pyarrow_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setattr("rnndet.inference.writers.parquet.find_spec", lambda name: None)
    with pytest.raises(RnndetError, match=r"pip install 'rnndet\[parquet\]'"):
        export_names(["parquet"])


def test_counts_have_the_last_counts_and_where_they_are(tmp_path):
    regions = Regions(lines={"gate": ((9, 0), (9, 9))})
    export = EXPORTS["counts"](tmp_path)
    info = VideoInfo("clip", "clip.mp4", *SIZE_HW[::-1], Fraction(25), LENGTH)
    export.begin(ExportedVideo(info, SIZE_HW, CLASSES, regions=regions))
    for index in range(3):
        counts = Counts({}, {"gate": LineCount({}, {"bird": index})})
        export.write(replace(results()[index], counts=counts), None)
    export.close()
    assert json.loads((tmp_path / "counts.json").read_text()) == {
        "source": "clip.mp4",
        "frames": 3,
        "counts": {"regions": {}, "lines": {"gate": {"to_left": {}, "to_right": {"bird": 2}}}},
        "where": {"regions": {}, "lines": {"gate": [[9, 0], [9, 9]]}, "point": "middle"},
    }
