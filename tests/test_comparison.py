"""examples/comparison: contenders take turns, and the table says what was measured."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "comparison"
LISTED = """
[[contender]]
name = "ours"
tool = "rnndet"
command = ["fake.py", "--slow", "1"]
ap = "34.1 at 416"
reference = true

[[contender]]
name = "theirs"
tool = "rnndet"
command = ["fake.py", "--slow", "3"]
ap = "21.3 at 320"

[[contender]]
name = "absent"
tool = "other"
command = ["fake.py"]
ap = "none"
"""
# prints its arguments' times; each call is noted in calls.txt beside it
FAKE = """
import json, sys
from pathlib import Path
video, _, slow, _, threads, _, frames = sys.argv[1:]
calls = Path(__file__).with_name("calls.txt")
done = calls.read_text().split() if calls.exists() else []
calls.write_text(" ".join([*done, f"{slow}x{threads}"]))
ms = float(slow) * (1 + done.count(f"{slow}x{threads}"))  # slower each round
print("a line of the tool's own")
print(json.dumps({"tool": f"fake {slow}", "input": [256, 448], "ms": ms, "cpu_ms": 2 * ms,
                  "cores": 1.0, "frames": int(frames), "objects": 2.0, "peak_mib": 100.0}))
"""


def load(name: str, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"comparison_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare(monkeypatch, tmp_path):
    module = load("compare", monkeypatch)
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "contenders.toml").write_text(LISTED)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    return module


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def line(ms: float, **changes) -> dict:
    return {
        "tool": "fake 1", "input": [256, 448], "ms": ms, "cpu_ms": ms, "cores": 1.0, "frames": 5,
        "objects": 2.0, "peak_mib": 100.0,
    } | changes  # fmt: skip


def made(compare, name: str, lines: list[dict], *, threads=1, reference=False):
    contender = compare.Contender(name, "rnndet", ("fake.py",), "34.1 at 416", reference)
    return compare.Runs(contender, threads, lines)


def test_contenders_take_turns_and_every_second_round_is_backwards(compare, tmp_path):
    arguments = ["clip.mp4", str(tmp_path / "contenders.toml"), "--rounds", "3", "--frames", "5"]
    assert compare.main([*arguments, "--threads", "1", "2"]) == 0
    forwards = ["1x1", "3x1", "1x2", "3x2"]
    calls = (tmp_path / "calls.txt").read_text().split()
    assert calls == [*forwards, *reversed(forwards), *forwards]


def test_table_has_medians_ranges_and_ratios_beside_the_accuracy(compare, tmp_path, capsys):
    out = tmp_path / "table.md"
    arguments = ["clip.mp4", str(tmp_path / "contenders.toml"), "--rounds", "3", "--frames", "5"]
    assert compare.main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    head, ours, theirs = rows(printed.out)
    assert head[:4] == ["tool", "COCO AP", "input", "threads"]
    assert ours == [
        "ours", "34.1 at 416", "448 x 256", "1", "2.0 (1.0 to 3.0)", "4.0 (2.0 to 6.0)", "1", "1",
        "2.0", "100",
    ]  # fmt: skip
    assert theirs[1] == "21.3 at 320"
    assert theirs[6] == "3.00 (3.00 to 3.00)"
    assert "- fake 1\n- fake 3\n" in printed.out
    assert "left out, no --python other=...: absent" in printed.err
    assert out.read_text() + "\n" == printed.out
    assert [entry["name"] for entry in json.loads(out.with_suffix(".json").read_text())] == [
        "ours",
        "theirs",
    ]


def test_ratios_are_those_of_the_same_round(compare):
    ours = made(compare, "ours", [line(1), line(10), line(2)], reference=True)
    theirs = made(compare, "theirs", [line(2), line(30), line(4)])
    assert compare.ratios(theirs, ours, "ms") == [2, 3, 2]
    assert rows(compare.table([ours, theirs]))[2][6] == "2.00 (2.00 to 3.00)"


def test_ratio_is_to_the_reference_with_as_many_threads(compare):
    runs = [
        made(compare, "ours", [line(4)], reference=True),
        made(compare, "theirs", [line(8)]),
        made(compare, "ours", [line(2)], threads=2, reference=True),
        made(compare, "theirs", [line(8)], threads=2),
    ]
    assert [row[6][:4] for row in rows(compare.table(runs))[1:]] == ["1", "2.00", "1", "4.00"]


def test_table_says_who_used_more_cores_than_told(compare):
    ours = made(compare, "ours", [line(1), line(1, cores=1.05)], reference=True)
    theirs = made(compare, "theirs", [line(1), line(1, cores=1.9)])
    assert [row[3] for row in rows(compare.table([ours, theirs]))[1:]] == ["1", "1 (used 1.9)"]


def test_contender_that_fails_is_named_with_its_message(compare, tmp_path):
    (tmp_path / "fake.py").write_text("import sys; sys.exit('no such model')")
    with pytest.raises(SystemExit, match=r"(?s)ours: .*fake.py.*no such model"):
        compare.main(["clip.mp4", str(tmp_path / "contenders.toml"), "--rounds", "1"])


@pytest.mark.parametrize("wrong", [LISTED.replace("reference = true", ""), LISTED + "sped = 1"])
def test_wrong_list_of_contenders_is_refused(compare, tmp_path, wrong):
    path = tmp_path / "wrong.toml"
    path.write_text(wrong)
    with pytest.raises(SystemExit, match=r"wrong\.toml: (exactly one|contender 'absent')"):
        compare.read_contenders(path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_lists_name_scripts_that_exist(monkeypatch, path):
    contenders = load("compare", monkeypatch).read_contenders(path)
    assert len(contenders) > 3
    for contender in contenders:
        assert (FOLDER / contender.command[0]).is_file(), contender
        assert contender.command[0] == f"{contender.tool}_track.py"
        assert contender.ap


def test_frames_of_warm_up_do_not_count(monkeypatch):
    times = load("frame_times", monkeypatch)
    clock = itertools.count()
    seconds = iter([100.0] * times.WARM_UP + [0.002, 0.004, 0.006])
    at = 0.0

    def now() -> float:  # called at the start of a frame and at its end
        nonlocal at
        if next(clock) % 2:
            at += next(seconds)
        return at

    objects = iter([50] * times.WARM_UP + [1, 2, 3, 99])
    measured = times.measure(objects, frames=3, now=now)
    assert measured["ms"] == pytest.approx(4)
    assert (measured["frames"], measured["objects"]) == (3, 2)


def test_video_that_is_too_short_is_refused(monkeypatch):
    times = load("frame_times", monkeypatch)
    with pytest.raises(SystemExit, match="12 frames are too few"):
        times.measure(iter([0] * 12), frames=3)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="ties itself to cores on Linux")
def test_one_thread_is_one_core_for_all_threads_of_the_process():
    code = (
        "import frame_times, os, threading, time\n"
        "frame_times.limit_threads(1)\n"
        "busy = [threading.Thread(target=lambda: sum(range(10**6))) for _ in range(3)]\n"
        "for one in busy: one.start()\n"
        "for one in busy: one.join()\n"
        "print(len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*_track.py")))
def test_scripts_import_nothing_heavy_before_their_threads_are_limited(name):
    code = f"import sys, {name}\nprint([m for m in ('torch', 'cv2', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "packages"), [("ultralytics", "ultralytics"), ("rfdetr", "rfdetr trackers")]
)
def test_missing_tool_is_named_in_one_line(name, packages, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise ImportError")  # in case that it is installed
    (tmp_path / "torch.py").write_text("")  # the real one takes seconds to load
    (tmp_path / "clip.mp4").write_bytes(b"")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    script = str(FOLDER / f"{name}_track.py")
    done = subprocess.run(
        [sys.executable, script, "clip.mp4"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        f"{name} is not installed; pip install {packages}\n",
    )


# trackers on the same detections


def write_mot(folder: Path, *, score: str = "0.9") -> None:
    """Two objects that move in 8 frames, each detected where it is."""
    rows = [(k, track, 10 + k + 60 * track, 20) for k in range(1, 9) for track in (1, 2)]
    for file in ("gt/gt.txt", "det/det.txt"):
        (folder / file).parent.mkdir(parents=True)
    info = "[Sequence]\nframeRate=25\nseqLength=8\n"
    (folder / "seqinfo.ini").write_text(info, encoding="utf-8")
    truths = "".join(f"{k},{track},{x},{y},30,40,1,1,1\n" for k, track, x, y in rows)
    (folder / "gt/gt.txt").write_text(truths, encoding="utf-8")
    found = "".join(f"{k},-1,{x},{y},30,40,{score}\n" for k, _, x, y in rows)
    (folder / "det/det.txt").write_text(found, encoding="utf-8")


def write_kitti(root: Path) -> None:
    """A car in 8 frames, detected where it is with a score of 2 before the sigmoid, and a detected
    pedestrian.
    """
    rest = "-1 -1 -1 -1000 -1000 -1000 -10"
    for name, row in (
        ("label_02", "{k} 1 Car 0 0 -10 {x} 50 {x2} 90 " + rest),
        ("det", "{k},2,{x},50,{x2},90,2.0,1.5,1.6,4.0"),
    ):
        (root / name).mkdir(parents=True)
        rows = [row.format(k=k, x=10 + k, x2=80 + k) + "\n" for k in range(8)]
        if name == "det":
            rows += [f"{k},1,200,50,240,140,3.0\n" for k in range(8)]
        (root / name / "0000.txt").write_text("".join(rows), encoding="utf-8")


def table(monkeypatch, capsys, *arguments) -> dict[str, list[str]]:
    """The cells of each tracker: HOTA, AssA, DetA, IDF1, id switches."""
    module = load("tracker_accuracy", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["tracker_accuracy.py", *map(str, arguments)])
    monkeypatch.setitem(sys.modules, "trackers", None)  # not installed
    module.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    return {name: cells for name, *cells in rows}


@pytest.mark.parametrize(("benchmark", "write"), [("MOT17", write_mot), ("KITTI", write_kitti)])
def test_tracks_of_perfect_detections_have_a_hota_of_100(
    benchmark, write, monkeypatch, capsys, tmp_path
):
    write(tmp_path if benchmark == "KITTI" else tmp_path / "a")
    rows = table(monkeypatch, capsys, tmp_path, "--benchmark", benchmark)
    assert rows["rnndet iou"] == ["100.0", "100.0", "100.0", "100.0", "0"]
    assert set(rows) == {"rnndet byte", "rnndet oc_sort", "rnndet sort", "rnndet iou"}


def test_boxes_before_a_track_has_an_id_are_not_counted(monkeypatch, capsys, tmp_path):
    write_mot(tmp_path / "a")
    hota, _, detected, *_ = table(monkeypatch, capsys, tmp_path)["rnndet sort"]
    assert detected == "87.5"  # sort gives ids from the second of 8 frames on
    assert float(hota) < 100


def test_scores_above_one_are_refused_in_a_line(monkeypatch, capsys, tmp_path):
    write_mot(tmp_path / "a", score="7.5")
    with pytest.raises(SystemExit, match=r"a: det/det.txt: scores must be from 0 to 1"):
        table(monkeypatch, capsys, tmp_path)


def test_a_sequence_without_detections_counts_as_missed(monkeypatch, capsys, tmp_path):
    write_mot(tmp_path / "a")
    write_mot(tmp_path / "b")
    (tmp_path / "b/det/det.txt").write_text("")
    rows = table(monkeypatch, capsys, tmp_path)
    assert rows["rnndet iou"][2] == "50.0"  # DetA


def test_labels_that_trackeval_refuses_end_in_a_line(monkeypatch, capsys, tmp_path):
    write_mot(tmp_path / "a")
    info = tmp_path / "a/seqinfo.ini"
    info.write_text(info.read_text().replace("seqLength=8", "seqLength=5"))
    with pytest.raises(SystemExit, match=r"invalid timesteps in seq a"):
        table(monkeypatch, capsys, tmp_path)
    assert "Traceback" not in capsys.readouterr().err


def test_missing_trackeval_is_said_before_any_work(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "trackeval", None)
    with pytest.raises(SystemExit, match=r"pip install 'rnndet\[eval\]'"):
        table(monkeypatch, capsys, tmp_path)


def test_a_threshold_that_is_no_score_is_refused(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        table(monkeypatch, capsys, tmp_path, "--min-score", "2")
    assert "--min-score: expected 0 to 1" in capsys.readouterr().err


def test_a_folder_without_sequences_is_refused_in_a_line(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit, match=r"no \*/gt/gt.txt in it"):
        table(monkeypatch, capsys, tmp_path)
