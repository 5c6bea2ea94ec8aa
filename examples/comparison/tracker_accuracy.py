"""HOTA of the trackers of rnndet and of the package trackers, for the same detections.

    pip install 'rnndet[eval]' trackers
    python examples/comparison/tracker_accuracy.py MOT17/train --benchmark MOT17
    python examples/comparison/tracker_accuracy.py kitti/training --benchmark KITTI

trackeval's own evaluation of the benchmark measures the boxes with an id whose score is at least
half the threshold, which is what `rnndet infer` shows. Images are not needed. Trackers keep their
defaults, but for the threshold, and those of the package know the frame rate. Without the package
its trackers are left out. Scores are from 0 to 1.

MOT15 to MOT20: each sequence is a folder with seqinfo.ini (frameRate, seqLength), gt/gt.txt and
det/det.txt, with the score in its seventh column; rows with -1 there have NO_SCORE. KITTI: cars, of
label_02/SEQUENCE.txt and det/SEQUENCE.txt, with rows `frame,type,x1,y1,x2,y2,score` of which type 2
is a car and the score of any real value, which a sigmoid maps to 0 to 1; more columns are not used.
"""

import argparse
import configparser
import contextlib
import io
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnndet.structures import Detections
from rnndet.tracking import make_tracker

BENCHMARKS = ("MOT15", "MOT16", "MOT17", "MOT20", "KITTI")
NO_SCORE = 0.9
KITTI_CAR, KITTI_FPS = 2, 10.0
OURS = ("byte", "oc_sort", "sort", "iou")
THEIRS = ("ByteTrack", "SORT", "OC-SORT")
COLUMNS = ("HOTA", "AssA", "DetA", "IDF1", "IDSW")


@dataclass(frozen=True)
class Sequence:
    """The detections of a sequence; those of a frame are (D, 5): x1 y1 x2 y2 score."""

    name: str
    fps: float
    frames: list[np.ndarray]


Tracks = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]  # boxes, scores and ids of a frame


def read_rows(file: Path) -> np.ndarray:
    """The first seven columns; no rows of an empty file."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # numpy's for no rows
        return np.loadtxt(file, delimiter=",", ndmin=2, usecols=range(7)).reshape(-1, 7)


def read_mot(folder: Path) -> Sequence:
    info = configparser.ConfigParser()
    info.read_string((folder / "seqinfo.ini").read_text(encoding="utf-8"))
    fps, length = (float(info["Sequence"][key]) for key in ("frameRate", "seqLength"))
    rows = read_rows(folder / "det/det.txt")
    scores = np.where(rows[:, 6] == -1, NO_SCORE, rows[:, 6])
    if scores.max(initial=0) > 1 or scores.min(initial=0) < 0:
        raise ValueError("det/det.txt: scores must be from 0 to 1, or -1 for none")
    boxes = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6], scores[:, None]], 1)
    return Sequence(folder.name, fps, by_frame(boxes, rows[:, 0] - 1, int(length)))


def read_kitti(labels: Path) -> Sequence:
    file = labels.parent.parent / "det" / labels.name
    rows = read_rows(file)
    rows = rows[rows[:, 1] == KITTI_CAR]
    last = int(np.loadtxt(labels, ndmin=1, usecols=0).max(initial=0))
    length = 1 + max(last, int(rows[:, 0].max(initial=0)))
    boxes = np.concatenate([rows[:, 2:6], 1 / (1 + np.exp(-rows[:, 6:7]))], 1)
    return Sequence(labels.stem, KITTI_FPS, by_frame(boxes, rows[:, 0], length))


def by_frame(boxes: np.ndarray, frames: np.ndarray, count: int) -> list[np.ndarray]:
    """The rows of each frame, the highest scores first."""
    order = np.argsort(-boxes[:, 4], kind="stable")
    boxes, frames = boxes[order], frames[order]
    return [boxes[frames == k] for k in range(count)]


def ours(name: str, sequence: Sequence, min_score: float) -> Tracks:
    tracker = make_tracker(name, min_score=min_score)
    assert tracker is not None
    for k, frame in enumerate(sequence.frames):
        table = frame.astype(np.float32)
        found = Detections(table[:, :4], table[:, 4], np.zeros(len(table), np.int64))
        tracked = tracker.update(found, time=k / sequence.fps)
        assert tracked.ids is not None
        yield tracked.boxes, tracked.scores, tracked.ids


def theirs(name: str, sequence: Sequence, min_score: float) -> Tracks:
    import supervision
    import trackers

    rate: dict[str, Any] = {"frame_rate": sequence.fps}
    tracker: Any = {
        "ByteTrack": lambda: trackers.ByteTrackTracker(
            track_activation_threshold=min_score + 0.1, high_conf_det_threshold=min_score, **rate
        ),
        "SORT": lambda: trackers.SORTTracker(track_activation_threshold=min_score, **rate),
        "OC-SORT": lambda: trackers.OCSORTTracker(high_conf_det_threshold=min_score, **rate),
    }[name]()
    for frame in sequence.frames:
        used = frame if name == "ByteTrack" else frame[frame[:, 4] >= min_score]
        found = supervision.Detections(
            xyxy=used[:, :4], confidence=used[:, 4], class_id=np.zeros(len(used), int)
        )
        tracked = tracker.update(found)
        ids = np.zeros(0, int) if tracked.tracker_id is None else tracked.tracker_id + 1
        yield tracked.xyxy, tracked.confidence, ids  # -1 there, so 0: no track


def write_tracks(path: Path, tracks: Tracks, *, least: float, is_kitti: bool) -> None:
    """Write the boxes with an id and a score from `least` on, in the benchmark's format."""
    with path.open("w", encoding="utf-8") as file:
        for k, (boxes, scores, ids) in enumerate(tracks):
            for (x1, y1, x2, y2), score, track in zip(boxes, scores, ids, strict=True):
                if track == 0 or score < least:
                    continue
                if is_kitti:
                    box = f"{x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}"
                    rest = "-1 -1 -1 -1000 -1000 -1000 -10"
                    file.write(f"{k} {track} Car -1 -1 -10 {box} {rest} {score:.4f}\n")
                else:
                    box = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
                    file.write(f"{k + 1},{track},{box},{score:.4f},-1,-1,-1\n")


def evaluate(root: Path, results: Path, lengths: dict[str, int], benchmark: str) -> dict[str, Any]:
    """trackeval's numbers of each folder of `results` over all sequences."""
    import trackeval

    quiet = {"PRINT_CONFIG": False}
    common = {**quiet, "TRACKERS_FOLDER": str(results)}
    if benchmark == "KITTI":
        truths = results.parent / "truths"
        shutil.copytree(root / "label_02", truths / "label_02")
        rows = "".join(f"{name} empty 0 {length}\n" for name, length in lengths.items())
        (truths / "evaluate_tracking.seqmap.training").write_text(rows, encoding="utf-8")
        data = trackeval.datasets.Kitti2DBox(
            {**common, "GT_FOLDER": str(truths), "CLASSES_TO_EVAL": ["car"]}
        )
    else:
        data = trackeval.datasets.MotChallenge2DBox({
            **common, "GT_FOLDER": str(root), "BENCHMARK": benchmark, "SKIP_SPLIT_FOL": True,
            "SEQ_INFO": lengths, "DO_PREPROC": benchmark != "MOT15",
        })  # fmt: skip
    evaluator = trackeval.Evaluator({
        **quiet, "PRINT_RESULTS": False, "TIME_PROGRESS": False, "OUTPUT_SUMMARY": False,
        "OUTPUT_DETAILED": False, "PLOT_CURVES": False, "BREAK_ON_ERROR": True,
        "LOG_ON_ERROR": None,
    })  # fmt: skip
    metrics = trackeval.metrics
    measured = [metrics.HOTA(), metrics.CLEAR(dict(quiet)), metrics.Identity(dict(quiet))]
    silent = io.StringIO()  # of an error it prints the traceback, too
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        found, _ = evaluator.evaluate([data], measured)
    kind = "car" if benchmark == "KITTI" else "pedestrian"
    return {name: run["COMBINED_SEQ"][kind] for name, run in found[data.get_name()].items()}


def row(name: str, numbers: dict[str, Any]) -> str:
    hota = {key: float(np.mean(numbers["HOTA"][key])) for key in ("HOTA", "AssA", "DetA")}
    shares = [*hota.values(), float(numbers["Identity"]["IDF1"])]
    cells = [f"{100 * value:.1f}" for value in shares] + [str(int(numbers["CLEAR"]["IDSW"]))]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path, help="folder of the sequences")
    parser.add_argument("--benchmark", default="MOT17", choices=BENCHMARKS, help="rules (MOT17)")
    parser.add_argument("--min-score", type=float, default=0.3, help="threshold (0.3)")
    args = parser.parse_args()
    if not 0 <= args.min_score <= 1:
        parser.error("--min-score: expected 0 to 1")
    try:
        import trackeval
    except ImportError as error:
        sys.exit(f"trackeval cannot be imported ({error}): pip install 'rnndet[eval]'")
    is_kitti = args.benchmark == "KITTI"
    labels = sorted(args.root.glob("label_02/*.txt" if is_kitti else "*/gt/gt.txt"))
    if not labels:
        sys.exit(f"{args.root}: no {'label_02/*.txt' if is_kitti else '*/gt/gt.txt'} in it")
    sequences = []
    for path in labels:
        where = path if is_kitti else path.parent.parent
        try:
            sequences.append(read_kitti(where) if is_kitti else read_mot(where))
        except (OSError, KeyError, ValueError, configparser.Error) as error:
            sys.exit(f"{where}: {error}")
    runs: dict[str, Callable[[Sequence], Tracks]] = {}
    for name in OURS:
        runs[f"rnndet {name}"] = lambda sequence, n=name: ours(n, sequence, args.min_score)
    try:
        import trackers  # noqa: F401

        for name in THEIRS:
            runs[f"trackers {name}"] = lambda sequence, n=name: theirs(n, sequence, args.min_score)
    except ImportError:
        print("trackers is not installed (pip install trackers): left out", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary, "tracks")
        for name, run in runs.items():
            folder = results / name / "data"
            folder.mkdir(parents=True)
            for sequence in sequences:
                tracks, least = run(sequence), args.min_score / 2
                file = folder / f"{sequence.name}.txt"
                write_tracks(file, tracks, least=least, is_kitti=is_kitti)
        lengths = {sequence.name: len(sequence.frames) for sequence in sequences}
        try:
            numbers = evaluate(args.root.resolve(), results, lengths, args.benchmark)
        except trackeval.utils.TrackEvalException as error:
            sys.exit(f"{args.root}: {error}")
    print(f"| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for name in runs:
        print(row(name, numbers[name]))


if __name__ == "__main__":
    main()
