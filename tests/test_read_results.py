"""Result files are read back as the numbers that were written."""

import json
import os
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from test_exports import CLASSES, LENGTH, SIZE_HW, results

import rnndet
from rnndet.errors import InputError, RnndetError
from rnndet.inference.results import ResultFiles, Summary
from rnndet.inference.writers.csv_table import COLUMNS
from rnndet.structures import VideoInfo
from rnndet.video.sink import describe_result

PARQUET = pytest.param(
    "detections.parquet",
    marks=pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow"),
)
FILES = ["detections.jsonl", "detections.csv", PARQUET]
SUMMARY = Summary(Path(), (), LENGTH, 0, 1.0, {}, {}, {}, 0, 0, False, None, None)


def write(folder: Path, shown=None, *, finish: bool = True) -> Path:
    """The files of a run with these results, in folder/clip."""
    save = ["csv", "parquet"] if find_spec("pyarrow") else ["csv"]
    info = VideoInfo("clip", "clip.mp4", *SIZE_HW[::-1], Fraction(25), LENGTH)
    path = folder / "clip"
    with ResultFiles(path, info, CLASSES, header={"min_score": 0.3}, save=save) as files:
        for result in results() if shown is None else shown:
            files.write(result)
        if finish:
            files.finish(SUMMARY)
    return path


def expected() -> list[tuple]:
    """A row for each object as it was shown."""
    rows = []
    for result in results():
        for entry in describe_result(result, CLASSES):
            rows.append((
                result.frame.index, round(result.frame.time, 6), entry.get("id", 0), entry["label"],
                entry.get("track_label", entry["label"]), entry["score"], *entry["box"],
                entry.get("predicted", False),
            ))  # fmt: skip
    return rows


@pytest.mark.parametrize("name", ["", *FILES])
def test_every_file_gives_back_what_was_written(tmp_path, name):
    table = rnndet.read_results(write(tmp_path) / name)
    assert tuple(table) == COLUMNS
    assert list(zip(*(column.tolist() for column in table.values()), strict=True)) == expected()
    assert {name: column.dtype.kind for name, column in table.items()} == {
        "frame": "i", "time": "f", "id": "i", "label": "U", "track_label": "U", "score": "f",
        "x1": "f", "y1": "f", "x2": "f", "y2": "f", "predicted": "b",
    }  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_results_without_objects_are_empty_columns_of_the_same_types(tmp_path, name):
    full = rnndet.read_results(write(tmp_path / "full") / name)
    empty_frames = [results()[index] for index in (4, 7)]
    table = rnndet.read_results(write(tmp_path / "empty", empty_frames) / name)
    assert [len(column) for column in table.values()] == [0] * len(COLUMNS)
    assert [c.dtype.kind for c in table.values()] == [c.dtype.kind for c in full.values()]


def test_frames_without_objects_are_in_the_frames_of_the_json(tmp_path):
    table = rnndet.read_results(write(tmp_path))
    assert table.frames["frame"].tolist() == list(range(LENGTH))
    assert np.allclose(table.frames["time"], np.arange(LENGTH) / 25)
    assert (table.header["min_score"], table.header["classes"]) == (0.3, list(CLASSES))
    assert table.summary["frames"] == LENGTH


def test_results_of_a_run_that_was_cut_short_are_read_up_to_its_last_whole_line(tmp_path):
    part = write(tmp_path, finish=False) / "detections.part.jsonl"
    whole = rnndet.read_results(part)
    assert whole.summary == {}
    assert len(whole["frame"]) == len(expected())
    part.write_bytes(part.read_bytes()[:-5])
    torn = rnndet.read_results(part)
    assert torn.frames["frame"].tolist() == list(range(LENGTH - 1))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("detections.jsonl", b"", "no header"),
        ("detections.jsonl", b"{\n", "not results"),
        ("detections.jsonl", b"[]\n", "not results"),
        ("detections.jsonl", b'{"type": "frame"}\n', "not results"),
        ("detections.jsonl", b"\xff\n", "not results"),
        ("detections.csv", b"", "not results"),
        ("detections.csv", b"a,b\n1,2\n", "columns"),
        ("detections.csv", ",".join(COLUMNS).encode() + b"\n1,2\n", "not results"),
        ("detections.txt", b"", "expected a folder of results"),
    ],
)
def test_other_files_are_one_line_that_names_the_file(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=what) as error:
        rnndet.read_results(tmp_path / name)
    assert name in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_damaged_parquet_is_an_input_error(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "detections.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not results"):
        rnndet.read_results(tmp_path / "detections.parquet")


@pytest.mark.parametrize("path", [None, 3, ["out/clip"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match="expected the path of results"):
        rnndet.read_results(path)


def test_a_path_may_be_bytes(tmp_path):
    assert len(rnndet.read_results(os.fsencode(write(tmp_path)))["frame"]) > 0


def test_a_missing_path_is_said_to_be_missing(tmp_path):
    for name in ("clip", "clip.jsonl", "clip.mp4"):
        with pytest.raises(InputError, match=rf"{name}: no such file or folder"):
            rnndet.read_results(tmp_path / name)


def test_the_folder_of_a_batch_names_the_videos_in_it(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "detections.jsonl").touch()
    with pytest.raises(InputError, match=r"give the folder of a video in \w+: a, b$"):
        rnndet.read_results(tmp_path)


@pytest.mark.parametrize("name", ["detections.part.jsonl", "detections.csv"])
def test_a_folder_without_the_json_names_the_results_in_it(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"give the path of {name}$"):
        rnndet.read_results(tmp_path)


def test_a_folder_called_as_the_results_are_no_results(tmp_path):
    (tmp_path / "detections.jsonl").mkdir()
    with pytest.raises(InputError, match=r"detections\.jsonl: no such file; expected the results"):
        rnndet.read_results(tmp_path)


def test_a_folder_without_results_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        rnndet.read_results(tmp_path)


def test_large_parquet_is_written_in_groups(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("rnndet.inference.writers.parquet.GROUP", 3)
    path = write(tmp_path) / "detections.parquet"
    assert parquet.ParquetFile(path).num_row_groups > 2
    assert rnndet.read_results(path)["score"].tolist() == [row[5] for row in expected()]


def test_a_data_frame_has_the_columns(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = rnndet.read_results(write(tmp_path))
    frame = table.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.itertuples(index=False, name=None)) == expected()


def test_without_pandas_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RnndetError, match=r"pip install 'rnndet\[parquet\]'"):
        rnndet.read_results(write(tmp_path)).to_pandas()


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "detections.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RnndetError, match=r"pip install 'rnndet\[parquet\]'"):
        rnndet.read_results(tmp_path / "detections.parquet")


def test_supervision_gets_boxes_scores_classes_and_ids():
    supervision = pytest.importorskip("supervision")
    found = results()[1].detections
    made = found.to_supervision(CLASSES)
    assert isinstance(made, supervision.Detections)
    assert np.array_equal(made.xyxy, found.boxes)
    assert np.array_equal(made.confidence, found.scores)
    assert np.array_equal(made.class_id, found.labels)
    assert made.tracker_id.tolist() == found.ids.tolist()
    assert made.data["class_name"].tolist() == [CLASSES[label] for label in found.labels]
    plain = rnndet.Detections.empty().to_supervision()
    assert (len(plain), plain.tracker_id) == (0, None)


def test_too_few_class_names_for_supervision_are_one_line():
    pytest.importorskip("supervision")
    found = rnndet.Detections(np.zeros((1, 4)), np.ones(1), np.array([3]))
    with pytest.raises(RnndetError, match="classes has 3 names, and a detection has the label 3"):
        found.to_supervision(["a", "b", "c"])


def test_without_supervision_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(RnndetError, match=r"pip install 'rnndet\[supervision\]'"):
        rnndet.Detections.empty().to_supervision()


def test_the_lines_of_the_json_are_those_of_the_table(tmp_path):
    path = write(tmp_path)
    lines = [json.loads(line) for line in (path / "detections.jsonl").read_text().splitlines()]
    boxes = [entry["box"] for line in lines if line["type"] == "frame" for entry in line["objects"]]
    table = rnndet.read_results(path)
    assert np.stack([table[name] for name in ("x1", "y1", "x2", "y2")], 1).tolist() == boxes
