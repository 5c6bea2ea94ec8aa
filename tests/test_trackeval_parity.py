"""The metric mot beside trackeval's own preprocessing, on random sets in the files of both."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rnndet.data.formats import read_set
from rnndet.data.writers.mot import write
from rnndet.evaluation.class_map import select_classes
from rnndet.evaluation.metrics.mot import Mot
from rnndet.evaluation.records import (
    EvaluatedVideo,
    FrameCollector,
    Predictions,
    load_predictions,
    save_predictions,
)
from rnndet.evaluation.videos import match_classes
from rnndet.structures import Detections
from rnndet.video.image import write_image

trackeval = pytest.importorskip("trackeval")

SIZE_HW = (240, 320)
MOT_CLASSES = (1, 1, 1, 1, 2, 3, 6, 7, 8, 9, 12, 13)  # of the objects, drawn at random

# name -> metric and field of trackeval
FIELDS = {
    "HOTA": ("HOTA", "HOTA"),
    "DetA": ("HOTA", "DetA"),
    "AssA": ("HOTA", "AssA"),
    "LocA": ("HOTA", "LocA"),
    "MOTA": ("CLEAR", "MOTA"),
    "IDF1": ("Identity", "IDF1"),
    "IDSW": ("CLEAR", "IDSW"),
    "FP": ("CLEAR", "CLR_FP"),
    "FN": ("CLEAR", "CLR_FN"),
}

Results = dict[str, Any]  # of trackeval, by the name of its metric


class Row(NamedTuple):
    """One box of a frame, counted from 0: left, top, width, height."""

    frame: int
    id: int
    xywh: tuple[float, float, float, float]
    label: int = 0


def objects(
    draw: np.random.Generator, count: int, *, frames: int, outside: bool = True
) -> list[list[Row]]:
    """Boxes of `count` objects that move, in overlapping pairs, and, if `outside`, leave the image.

    Coordinates are quarters of a pixel, which are exact in float32 and in the files.
    """
    height, width = SIZE_HW
    tracks: list[list[Row]] = []
    start, speed, w, h = np.zeros(2), np.zeros(2), 0.0, 0.0
    for number in range(count):
        if number % 2:  # beside the object before
            corner = start + draw.uniform(-0.25, 0.25, 2) * (w, h)
        else:
            corner = start = draw.uniform((-30, -30), (width - 30, height - 40))
            (w, h), speed = draw.uniform((16, 20), (60, 110)), draw.uniform(-6, 6, 2)
        rows = []
        for frame in range(frames):
            left, top, *size = (quarters(v) for v in (*(corner + frame * speed), w, h))
            if not outside:
                left = min(max(left, 0), width - size[0])
                top = min(max(top, 0), height - size[1])
            if draw.random() < 0.9:
                rows.append(Row(frame, number + 1, (left, top, *size)))
        tracks.append(rows)
    return tracks


def quarters(value: float) -> float:
    return round(4 * value) / 4


def tracker_output(
    draw: np.random.Generator, tracks: Sequence[Sequence[Row]], *, frames: int
) -> list[Row]:
    """Shifted boxes of the objects with misses and exchanged ids, and false positives."""
    rows = []
    for number, track in enumerate(tracks):
        id = 100 + number
        for row in track:
            if draw.random() < 0.08:
                id = 100 * int(draw.integers(2, 9)) + number  # another id from here on
            if draw.random() < 0.85:
                shift = [quarters(v) for v in draw.normal(0, 3, 4)]
                x, y, w, h = (a + b for a, b in zip(row.xywh, shift, strict=True))
                rows.append(Row(row.frame, id, (x, y, max(w, 4), max(h, 4)), row.label))
    for number in range(6 * frames // 4):
        x, y = round(draw.uniform(0, 280)), round(draw.uniform(0, 200))
        size = (round(draw.uniform(8, 60)), round(draw.uniform(8, 60)))
        label = int(draw.integers(0, 1 + max(row.label for row in rows)))
        rows.append(Row(int(draw.integers(0, frames)), 5000 + number, (x, y, *size), label))
    return sorted(rows, key=lambda row: row.frame)


def evaluated_videos(videos: Any, found: dict[str, list[Row]]) -> list[EvaluatedVideo]:
    """The rows of a tracker as detections beside the labels that a reader gave."""
    evaluated = []
    for video in videos.videos:
        collector = FrameCollector(video)
        for record in video.frames:
            rows = [row for row in found[video.name] if row.frame == record.index]
            x, y, w, h = np.array([row.xywh for row in rows], float).reshape(-1, 4).T
            detections = Detections(
                np.stack([x, y, x + w, y + h], 1).astype(np.float32),
                np.ones(len(rows), np.float32),
                np.array([row.label for row in rows], np.int64),
                np.array([row.id for row in rows], np.int64),
            )
            collector.add(record.index, detections)
        evaluated.append(collector.video())
    return evaluated


def ours(videos: Any, found: dict[str, list[Row]], label: int) -> dict[str, Results]:
    """trackeval's results on what the metric keeps, of each video and combined."""
    metric = Mot(videos.classes)
    parts = {v.name: metric.measure(v)[label] for v in evaluated_videos(videos, found)}
    return parts | {"all": combined(parts)}


def theirs(dataset: Any, names: Sequence[str], tracker: str, kind: str) -> dict[str, Results]:
    """The results of trackeval, of each sequence and combined."""
    parts = {}
    for name in names:
        data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data(tracker, name), kind)
        parts[name] = {name: metric.eval_sequence(data) for name, metric in metrics().items()}
    return parts | {"all": combined(parts)}


def metrics() -> dict[str, Any]:
    quiet = {"PRINT_CONFIG": False}
    module = trackeval.metrics
    return {
        "HOTA": module.HOTA(),
        "CLEAR": module.CLEAR(dict(quiet)),
        "Identity": module.Identity(dict(quiet)),
    }


def combined(parts: dict[str, Results]) -> Results:
    return {
        name: metric.combine_sequences({key: part[name] for key, part in parts.items()})
        for name, metric in metrics().items()
    }


def assert_equal(a: dict[str, Results], b: dict[str, Results]) -> None:
    """Every figure of FIELDS is equal to six decimals, for every sequence and combined."""
    assert a.keys() == b.keys()
    for video in a:
        for figure, (metric, field) in FIELDS.items():
            first, second = (np.mean(part[video][metric][field]) for part in (a, b))
            assert first == pytest.approx(second, abs=5e-7), (video, figure)


# MOTChallenge


def write_mot(root: Path, name: str, rows: Sequence[str], *, frames: int) -> None:
    folder = root / "train" / name
    (folder / "gt").mkdir(parents=True)
    (folder / "img1").mkdir()
    for number in range(1, frames + 1):
        (folder / "img1" / f"{number:06d}.jpg").touch()
    height, width = SIZE_HW
    info = f"name={name}\nseqLength={frames}\nimWidth={width}\nimHeight={height}\nframeRate=30"
    (folder / "seqinfo.ini").write_text(f"[Sequence]\n{info}\n")
    (folder / "gt/gt.txt").write_text("".join(rows))


def write_mot_tracker(root: Path, name: str, rows: Sequence[Row]) -> None:
    folder = root / "trackers" / "ours" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(
        f"{row.frame + 1},{row.id},{x + 1},{y + 1},{w},{h},1,-1,-1,-1\n"
        for row in rows
        for x, y, w, h in [row.xywh]
    )
    (folder / f"{name}.txt").write_text(text)


def mot_sequence(
    root: Path, name: str, draw: np.random.Generator, *, frames: int = 24
) -> list[Row]:
    """Write a random sequence with distractors, flags and other classes; return the tracker's."""
    tracks = objects(draw, 14, frames=frames)
    rows = []
    for track in tracks:
        kind = int(draw.choice(MOT_CLASSES))
        flag = int(draw.random() < 0.85) if kind == 1 else 0
        for row in track:
            x, y, w, h = row.xywh
            rows.append(
                (row.frame, f"{row.frame + 1},{row.id},{x + 1},{y + 1},{w},{h},{flag},{kind},1\n")
            )
    write_mot(root, name, [text for _, text in sorted(rows)], frames=frames)
    found = tracker_output(draw, tracks, frames=frames)
    write_mot_tracker(root, name, found)
    return found


def mot_dataset(root: Path, names: Sequence[str], benchmark: str) -> Any:
    return trackeval.datasets.MotChallenge2DBox(
        {
            "GT_FOLDER": str(root / "train"),
            "TRACKERS_FOLDER": str(root / "trackers"),
            "SEQ_INFO": dict.fromkeys(names),
            "BENCHMARK": benchmark,
            "SKIP_SPLIT_FOL": True,
            "PRINT_CONFIG": False,
        }
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("benchmark", ["MOT17", "MOT20"])
def test_motchallenge_with_distractors_and_amodal_boxes(
    tmp_path: Path, benchmark: str, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    names = [f"{benchmark}-0{number}" for number in range(3)]
    found = {name: mot_sequence(tmp_path, name, draw) for name in names}
    dataset = mot_dataset(tmp_path, names, benchmark)
    videos = read_set("mot", tmp_path, "train")
    assert_equal(ours(videos, found, 0), theirs(dataset, names, "ours", "pedestrian"))


def test_motchallenge_2015_has_no_distractors(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    found = {"A": mot_sequence(tmp_path, "A", draw)}
    file = tmp_path / "train/A/gt/gt.txt"
    rows = [line.split(",")[:7] for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row[6] = str(int(number % 4 > 0))
    file.write_text("".join(",".join([*row, "-1", "-1", "-1"]) + "\n" for row in rows))
    expected = theirs(mot_dataset(tmp_path, ["A"], "MOT15"), ["A"], "ours", "pedestrian")
    assert_equal(ours(read_set("mot", tmp_path, "train"), found, 0), expected)


def test_stored_predictions_give_the_same_numbers(tmp_path: Path) -> None:
    found = {"MOT17-02": mot_sequence(tmp_path, "MOT17-02", np.random.default_rng(3))}
    dataset = mot_dataset(tmp_path, ["MOT17-02"], "MOT17")
    run = Predictions(("pedestrian",))
    (video,) = evaluated_videos(read_set("mot", tmp_path, "train"), found)
    run.add(video)
    save_predictions(tmp_path / "run.npz", run)
    (stored,) = load_predictions(tmp_path / "run.npz").videos
    part = {"MOT17-02": Mot(("pedestrian",)).measure(stored)[0]}
    expected = theirs(dataset, ["MOT17-02"], "ours", "pedestrian")
    assert_equal(part | {"all": combined(part)}, expected)


def test_labels_of_a_model_with_other_classes_give_the_same_numbers(tmp_path: Path) -> None:
    found = {"MOT20-01": mot_sequence(tmp_path, "MOT20-01", np.random.default_rng(5))}
    dataset = mot_dataset(tmp_path, ["MOT20-01"], "MOT20")
    videos = match_classes(read_set("mot", tmp_path, "train"), ("car", "pedestrian"))
    relabelled = {n: [row._replace(label=1) for row in rows] for n, rows in found.items()}
    expected = theirs(dataset, ["MOT20-01"], "ours", "pedestrian")
    assert_equal(ours(videos, relabelled, 1), expected)
    run = Predictions(videos.classes)
    run.add(evaluated_videos(videos, relabelled)[0])
    (chosen,) = select_classes(run, ["pedestrian"]).videos
    part = {"MOT20-01": Mot(("pedestrian",)).measure(chosen)[0]}
    assert_equal(part | {"all": combined(part)}, expected)


def test_written_set_keeps_distractors_and_amodal_boxes(tmp_path: Path) -> None:
    draw = np.random.default_rng(11)
    found = {"MOT17-02": mot_sequence(tmp_path, "MOT17-02", draw)}
    file = tmp_path / "train/MOT17-02/gt/gt.txt"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    text = [",".join(row) + "\n" for row in rows if row[7] in "278" or row[6:8] == ["1", "1"]]
    file.write_text("".join(text))  # boxes that only take part in matching are not written
    expected = theirs(
        mot_dataset(tmp_path, ["MOT17-02"], "MOT17"), ["MOT17-02"], "ours", "pedestrian"
    )
    write(read_set("mot", tmp_path, "train"), tmp_path / "new", "train", images=False)
    (tmp_path / "train/MOT17-02/img1").rename(tmp_path / "new/train/MOT17-02/img1")
    assert_equal(ours(read_set("mot", tmp_path / "new", "train"), found, 0), expected)


# KITTI


def kitti_sequence(root: Path, name: str, draw: np.random.Generator, *, frames: int = 24) -> Any:
    """Write random objects of several types, some truncated or hidden, with DontCare regions."""
    tracks = objects(draw, 14, frames=frames, outside=False)
    kinds = ("Car", "Car", "Van", "Pedestrian", "Pedestrian", "Person_sitting", "Cyclist")
    devkit = {"Person_sitting": "Person"}
    labels, rows = {"Car": 0, "Van": 0, "Pedestrian": 1, "Person_sitting": 1, "Cyclist": 2}, []
    found = []
    for number, track in enumerate(tracks):
        kind = str(draw.choice(kinds))
        found.append([row._replace(label=labels[kind]) for row in track])
        for row in track:
            truncated, occluded = draw.choice([0, 0, 0, 1]), draw.choice([0, 1, 2, 3])
            rows.append((row, devkit.get(kind, kind), number, truncated, occluded))
    for frame in range(frames):
        for _ in range(2):
            x, y = draw.integers(0, 250), draw.integers(0, 180)
            region = (int(x), int(y), int(draw.integers(20, 70)), int(draw.integers(20, 60)))
            rows.append((Row(frame, -1, region), "DontCare", -1, -1, -1))
    rows.sort(key=lambda entry: entry[0].frame)
    text = "".join(
        f"{row.frame} {id} {kind} {truncated} {occluded} -10 {x} {y} {x + w} {y + h}"
        " -1 -1 -1 -1000 -1000 -1000 -10\n"
        for row, kind, id, truncated, occluded in rows
        for x, y, w, h in [row.xywh]
    )
    (root / "training/label_02").mkdir(parents=True, exist_ok=True)
    (root / "training/label_02" / f"{name}.txt").write_text(text)
    folder = root / "training/image_02" / name
    folder.mkdir(parents=True)
    write_image(folder / "000000.png", np.zeros((*SIZE_HW, 3), np.uint8))
    for number in range(1, frames):
        (folder / f"{number:06d}.png").touch()
    tracked = tracker_output(draw, found, frames=frames)
    names = ("Car", "Pedestrian", "Cyclist")
    text = "".join(
        f"{row.frame} {row.id} {names[row.label]} -1 -1 -10 {x} {y} {x + w} {y + h}"
        " -1 -1 -1 -1000 -1000 -1000 -10 1\n"
        for row in tracked
        for x, y, w, h in [row.xywh]
        if row.label < 2  # trackeval's reader knows no other
    )
    (root / "trackers/ours/data").mkdir(parents=True, exist_ok=True)
    (root / "trackers/ours/data" / f"{name}.txt").write_text(text)
    return tracked


@pytest.mark.parametrize("seed", range(4))
def test_kitti_with_vans_hidden_objects_and_dontcare(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    names = ["0000", "0001", "0002"]
    found = {name: kitti_sequence(tmp_path, name, draw) for name in names}
    folder = tmp_path / "training"
    rows = "".join(f"{name} empty 000000 000024\n" for name in names)
    (folder / "evaluate_tracking.seqmap.training").write_text(rows)
    dataset = trackeval.datasets.Kitti2DBox(
        {
            "GT_FOLDER": str(folder),
            "TRACKERS_FOLDER": str(tmp_path / "trackers"),
            "SPLIT_TO_EVAL": "training",
            "PRINT_CONFIG": False,
        }
    )
    videos = read_set("kitti_tracking", tmp_path, "training")
    for label, kind in enumerate(("car", "pedestrian")):
        assert_equal(ours(videos, found, label), theirs(dataset, names, "ours", kind))


# BDD100K


def bdd_sequence(root: Path, name: str, draw: np.random.Generator, *, frames: int = 24) -> Any:
    """Write random objects of several categories, with crowds and distractors."""
    tracks = objects(draw, 14, frames=frames, outside=False)
    kinds = ("pedestrian", "pedestrian", "rider", "car", "other person", "trailer", "other vehicle")
    labels: list[list[dict[str, Any]]] = [[] for _ in range(frames)]
    found = []
    for track in tracks:
        kind, is_crowd = str(draw.choice(kinds)), bool(draw.random() < 0.2)
        label = {"pedestrian": 0, "rider": 1, "car": 2}.get(kind, int(draw.integers(0, 3)))
        found.append([row._replace(label=label) for row in track])
        for row in track:
            labels[row.frame].append(bdd_label(row, kind, crowd=is_crowd))
    tracked = tracker_output(draw, found, frames=frames)
    results: list[list[dict[str, Any]]] = [[] for _ in range(frames)]
    for row in tracked:
        results[row.frame].append(bdd_label(row, ("pedestrian", "rider", "car")[row.label]))
    for folder, content in (("labels/box_track_20/val", labels), ("trackers/ours/data", results)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        entries = [
            {"name": f"{name}-{index:07d}.jpg", "index": index, "labels": entry}
            for index, entry in enumerate(content)
        ]
        (root / folder / f"{name}.json").write_text(json.dumps(entries))
    images = root / "images/track/val" / name
    images.mkdir(parents=True)
    write_image(images / f"{name}-0000000.jpg", np.zeros((*SIZE_HW, 3), np.uint8))
    for index in range(1, frames):
        (images / f"{name}-{index:07d}.jpg").touch()
    return tracked


def bdd_label(row: Row, kind: str, *, crowd: bool = False) -> dict[str, Any]:
    x, y, w, h = row.xywh
    box = {"x1": x, "y1": y, "x2": x + w, "y2": y + h}
    return {"id": str(row.id), "category": kind, "attributes": {"Crowd": crowd}, "box2d": box}


@pytest.mark.parametrize("seed", range(4))
def test_bdd100k_with_crowds_and_distractors(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    names = ["a", "b", "c"]
    found = {name: bdd_sequence(tmp_path, name, draw) for name in names}
    dataset = trackeval.datasets.BDD100K(
        {
            "GT_FOLDER": str(tmp_path / "labels/box_track_20/val"),
            "TRACKERS_FOLDER": str(tmp_path / "trackers"),
            "PRINT_CONFIG": False,
        }
    )
    videos = read_set("bdd100k_mot", tmp_path, "val")
    for label, kind in enumerate(("pedestrian", "rider", "car")):
        assert_equal(ours(videos, found, label), theirs(dataset, names, "ours", kind))
