"""examples/ray_batch.py; the tests that need Ray are left out where it is not installed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batches import frames_of, load_tool, order, save_weights, summary_of, write_clip

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "ray_batch.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("ray_batch", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_ray_one_line_names_the_extra(example, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert example.main(["clip.mp4"]) == 2
    assert capsys.readouterr().err == "ray_batch: Ray is not installed; pip install 'rnndet[ray]'\n"


def test_task_writes_the_files_of_rnndet_infer(example, weights, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", length=4, seed=0)
    assert load_tool().main(order(weights, tmp_path / "alone", clip)) == 0
    given = tuple(order(weights, tmp_path / "out", clip, "--resume"))
    entry = example.run_video(given, str(clip), "a")
    (alone,) = summary_of(tmp_path / "alone")["sources"]
    assert entry.keys() == alone.keys()
    assert (entry["exit_code"], entry["frames"]) == (0, 4)
    assert frames_of(tmp_path / "out") == frames_of(tmp_path / "alone")
    assert example.run_video(given, str(clip), "a")["skipped"] is True


def writers_of(path: Path) -> list[int]:
    """Processes that have the file open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == str(path):
                found.append(int(link.parts[2]))
        except OSError:  # gone, or not ours
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_dead_worker_is_retried_and_a_failing_video_is_listed_once(weights, tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    lengths = {"a.mp4": 150, "x/sky.mp4": 20, "poison.mp4": 150, "y/sky.mp4": 30}
    clips = [write_clip(tmp_path / name, length=n, seed=n) for name, n in lengths.items()]
    good = [clip for clip in clips if clip.stem != "poison"]
    assert load_tool().main(order(weights, tmp_path / "alone", *good)) == 0
    out = tmp_path / "out"
    options = [o for o in order(weights, out) if o not in ("--out", str(out))]
    given = [*clips, "--out", out, "--workers", 1, "--retries", 2, "--", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, EXAMPLE, *map(str, given)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    kills = {"a": 1, "poison": 100}
    killed = dict.fromkeys(kills, 0)
    victims: set[int] = set()
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        for name in kills:
            for pid in writers_of(out / name / "detections.part.jsonl"):
                if killed[name] < kills[name] and pid not in victims:
                    os.kill(pid, signal.SIGKILL)
                    victims.add(pid)
                    killed[name] += 1
        time.sleep(0.02)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1, printed
    assert killed == {"a": 1, "poison": 3}
    entries = json.loads((out / "summary.json").read_text())["sources"]
    assert [entry["exit_code"] for entry in entries] == [0, 0, 3, 0]
    assert [entry["folder"] for entry in entries] == ["a", "sky", "poison", "sky-2"]
    assert "its worker died in each of 3 tries" in entries[2]["error"]
    assert printed.count("poison") == 1
    assert frames_of(out) == frames_of(tmp_path / "alone")
