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
