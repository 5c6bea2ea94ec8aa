"""Batches of rnndet infer: shards, done.json, killed and resumed runs."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from batches import frames_of, load_tool, order, save_weights, summary_of, write_clip
from forked_process import ForkedProcess

from rnndet.cli import infer as infer_cli
from rnndet.errors import OutputError
from rnndet.inference.batch.done import DoneRecord, describe_job, find_done
from rnndet.inference.batch.sharding import split
from rnndet.video.image import write_image
from rnndet.video.sources.identity import source_bytes
from rnndet.video.sources.isolated import IsolatedSource


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Five clips, of which two have one name."""
    root = tmp_path_factory.mktemp("clips")
    names = {"a.mp4": 60, "day/sky.mp4": 50, "night/sky.mp4": 45, "b.mp4": 40, "c.mp4": 5}
    return [
        write_clip(root / name, length=length, seed=seed)
        for seed, (name, length) in enumerate(names.items())
    ]


@pytest.fixture
def infer(weights, tmp_path):
    tool = load_tool()
    return lambda *arguments: tool.main(order(weights, tmp_path / "out", *arguments))


def wait_until(true, process: ForkedProcess) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if true():
            return
        time.sleep(0.01)
    raise AssertionError(f"the tool did not get there; exit {process.poll()}")


def test_shards_with_a_killed_and_repeated_run_equal_a_single_run(infer, weights, clips, tmp_path):
    out, alone = tmp_path / "out", tmp_path / "alone"
    assert load_tool().main(order(weights, alone, *clips)) == 0
    killed, other = sorted(range(2), key=lambda k: -len(shards_of(clips)[k]))
    first, second = [folders(clips)[place] for place in shards_of(clips)[killed][:2]]

    again = [*clips, "--resume", "--shard", f"{killed}/2"]
    process = ForkedProcess(infer_cli.main, order(weights, out, *again))
    part = out / second / "detections.part.jsonl"
    wait_until(lambda: part.exists() and part.read_bytes().count(b"\n") > 5, process)
    process.kill()
    process.wait()
    assert (out / first / "done.json").exists()
    assert not (out / second / "done.json").exists()
    finished = (out / first / "detections.jsonl").read_bytes()

    assert infer(*clips, "--resume", "--shard", f"{other}/2") == 0
    assert infer(*again) == 0
    assert (out / first / "detections.jsonl").read_bytes() == finished
    skipped = [s.get("skipped", False) for s in sources_of(out, killed)]
    assert skipped == [True] + [False] * (len(skipped) - 1)
    listed = [s["source"] for shard in range(2) for s in sources_of(out, shard)]
    assert sorted(listed) == sorted(map(str, clips))
    assert len(frames_of(alone)) == len(clips)
    assert frames_of(out) == frames_of(alone)


def shards_of(clips) -> list[list[int]]:
    return split([source_bytes(str(clip)) for clip in clips], 2)


def folders(clips) -> list[str]:
    return ["a", "sky", "sky-2", "b", "c"]


def sources_of(out: Path, shard: int) -> list[dict]:
    return summary_of(out, f"summary-{shard}-of-2.json")["sources"]


def test_resume_runs_only_missing_sources_and_reports_it(infer, clips, tmp_path, capsys):
    out, (one, two) = tmp_path / "out", (clips[4], clips[3])
    assert infer(one, "--max-frames", 3, "--resume") == 0
    assert infer(one, two, "--max-frames", 3, "--resume") == 0
    entries = summary_of(out)["sources"]
    assert [entry.get("skipped", False) for entry in entries] == [True, False]
    assert entries[0] == {
        "source": str(one), "exit_code": 0, "folder": "c", "skipped": True, "frames": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "named"),
    [(["--max-frames", 2], "options.max_frames was 3, is 2"),
     (["--max-frames", 3, "--tracker", "sort"], 'options.tracker was "byte", is "sort"'),
     (["--max-frames", 3, "--tracker-option", "max_age=2"], "options.tracker_options"),
     (["--max-frames", 3, "--classes", "bar"], 'options.classes was null, is ["bar"]')],
)  # fmt: skip
def test_resume_with_other_options_names_them_and_continues(infer, clips, capsys, changed, named):
    assert infer(clips[4], "--max-frames", 3) == 0
    assert infer(clips[4], clips[3], *changed, "--resume") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0] and "--overwrite" in lines[0]
    assert infer(clips[4], clips[3], *changed, "--resume", "--overwrite") == 0


def test_record_has_exactly_the_options_that_change_results(infer, clips, tmp_path):
    """Including records of earlier versions, so that their results remain valid."""
    given = ["--max-frames", 2, "--threads", 1, "--batch-sources", 2, "--resume", "--save", "mot"]
    assert infer(clips[4], *given, "--start", 0.04, "--trails", 3) == 0
    record = json.loads((tmp_path / "out" / "c" / "done.json").read_text())
    assert record["job"]["options"] == {
        "runtime": "torch",
        "half": False,
        "score_threshold": 0.01,
        "tracker": "byte",
        "no_scene_cuts": False,
        "key_every": 1,
        "key_lost": 0.0,
        "start": 0.04,
        "end": None,
        "stride": 1,
        "max_frames": 2,
        "load_state": None,
        "save": ["mot"],
        "trails": 3,
        "coast": 0.0,
        "classes": None,
    }


def test_record_of_a_version_without_classes_is_done(infer, clips, tmp_path):
    assert infer(clips[4], "--max-frames", 2) == 0
    path = tmp_path / "out" / "c" / "done.json"
    record = json.loads(path.read_text())
    del record["job"]["options"]["classes"]
    path.write_text(json.dumps(record))
    assert infer(clips[4], "--max-frames", 2, "--resume") == 0
    assert summary_of(tmp_path / "out")["sources"][0]["skipped"] is True


def test_resume_does_not_depend_on_the_order_of_the_classes(infer, clips, tmp_path):
    assert infer(clips[4], "--max-frames", 2, "--classes", "bar,square") == 0
    assert infer(clips[4], "--max-frames", 2, "--classes", "square,bar", "--resume") == 0
    assert summary_of(tmp_path / "out")["sources"][0]["skipped"] is True


def test_options_without_effect_do_not_matter(infer, clips, tmp_path):
    assert infer(clips[4], "--max-frames", 3, "--threads", 1) == 0
    assert infer(clips[4], "--max-frames", 3, "--resume") == 0
    assert summary_of(tmp_path / "out")["sources"][0]["skipped"] is True


def test_resume_with_another_source_or_model_is_refused(infer, clips, weights, tmp_path, capsys):
    clip = tmp_path / "c.mp4"
    clip.write_bytes(clips[4].read_bytes())
    assert infer(clip, "--max-frames", 2) == 0
    clip.write_bytes(clips[3].read_bytes())
    assert infer(clip, "--max-frames", 2, "--resume") == 4
    assert "source.bytes was" in capsys.readouterr().err
    clip.write_bytes(clips[4].read_bytes())
    other = tmp_path / "other.pt"
    save_weights(other, seed=1)
    assert infer(clip, "--max-frames", 2, "--resume", "--weights", other) == 4
    assert "model_sha256" in capsys.readouterr().err


def test_results_without_a_record_are_made_again(infer, clips, tmp_path):
    """As after a kill between the names of the results and done.json, or after Ctrl-C."""
    folder = tmp_path / "out" / "c"
    assert infer(clips[4], "--max-frames", 3) == 0
    (folder / "done.json").unlink()
    (folder / "detections.jsonl").write_text("half\n")
    assert infer(clips[4], "--max-frames", 3, "--resume") == 0
    assert len((folder / "detections.jsonl").read_text().splitlines()) == 5
    assert (folder / "done.json").exists()


def test_interrupted_source_is_not_done(infer, clips, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rnndet.inference.results.Tally.add", stop)
    assert infer(clips[4]) == 130
    assert not (tmp_path / "out" / "c" / "done.json").exists()


def test_interrupted_rerun_leaves_no_record_of_the_old_results(infer, clips, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    assert infer(clips[4], "--max-frames", 3) == 0
    monkeypatch.setattr("rnndet.inference.results.Tally.add", stop)
    assert infer(clips[4], "--max-frames", 3, "--overwrite") == 130
    assert not (tmp_path / "out" / "c" / "done.json").exists()


def test_refused_rerun_keeps_the_record(infer, clips, tmp_path):
    assert infer(clips[4], "--max-frames", 3) == 0
    assert infer(clips[4], "--max-frames", 3) == 4
    assert (tmp_path / "out" / "c" / "done.json").exists()


def test_failed_source_is_tried_again(infer, clips, tmp_path):
    late = tmp_path / "late.mp4"
    assert infer(late, clips[4], "--max-frames", 2, "--resume") == 1
    late.write_bytes(clips[3].read_bytes())
    assert infer(late, clips[4], "--max-frames", 2, "--resume") == 0
    entries = summary_of(tmp_path / "out")["sources"]
    assert [entry.get("skipped", False) for entry in entries] == [False, True]


def test_shard_without_a_source_is_fine(infer, clips, tmp_path):
    assert infer(clips[4], "--shard", "1/2") == 0
    assert summary_of(tmp_path / "out", "summary-1-of-2.json") == {"exit_code": 0, "sources": []}


def test_shard_of_the_environment(infer, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert infer(clips[4], "--shard", "auto", "--max-frames", 1) == 0
    assert (tmp_path / "out" / "summary-0-of-1.json").exists()


def test_impossible_shard_is_exit_2(infer, clips, capsys):
    assert infer(clips[4], "--shard", "2/2") == 2
    assert "no shard 2 of 2" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--shard=0/1", "--resume"])
def test_saved_state_is_refused_in_a_batch(infer, clips, tmp_path, flag):
    assert infer(clips[4], flag, "--save-state", tmp_path / "s.pt") == 2


def test_isolated_decoding_gives_equal_results_and_a_crash_fails_a_single_source(
    weights, clips, tmp_path, capsys, monkeypatch
):
    class Crashing(IsolatedSource):
        def __iter__(self):
            for frame in super().__iter__():
                if self.info.name == "a":
                    os.kill(self.pid, signal.SIGSEGV)
                yield frame

    tool, out = load_tool(), tmp_path / "out"
    assert tool.main(order(weights, tmp_path / "plain", clips[4])) == 0
    monkeypatch.setattr("rnndet.inference.batch.run.IsolatedSource", Crashing)
    assert tool.main(order(weights, out, clips[0], clips[4], "--isolate")) == 1
    assert [entry["exit_code"] for entry in summary_of(out)["sources"]] == [3, 0]
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.mp4: the decoder crashed (SIGSEGV)" in line
    assert frames_of(out) == frames_of(tmp_path / "plain")


# done.json itself


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "r.jsonl").write_text("{}\n")
    return tmp_path


def record(folder, **options):
    job = describe_job("0", model_sha256="1", options=options)
    files = [folder / "r.jsonl"]
    DoneRecord(job, "no-file").write(folder, frames=1, is_complete=True, files=files)
    return job


def test_record_round_trips(folder):
    found = find_done(folder, record(folder, start=0.1, save=("a", "b")))
    assert (found["frames"], found["files"], found["exit_code"]) == (1, ["r.jsonl"], 0)
    assert not list(folder.glob("*.part*"))


def test_option_of_another_version_is_a_difference(folder):
    job = record(folder, old=1)
    job["options"] = {"new": 1}
    with pytest.raises(OutputError, match=r"options\.new was null, is 1; options\.old was 1"):
        find_done(folder, job)


def test_missing_result_means_not_done(folder):
    job = record(folder)
    (folder / "r.jsonl").unlink()
    assert find_done(folder, job) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"job": {}, "files": [1]}', "[" * 100_000])
def test_damaged_record_means_not_done(folder, text):
    job = record(folder)
    (folder / "done.json").write_text(text)
    assert find_done(folder, job) is None


def test_strict_rerun_repeats_an_incomplete_source(infer, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (0, 1, 3, 4):  # 2 is missing
        write_image(folder / f"{number}.png", np.zeros((64, 96, 3), np.uint8))
    assert infer(folder) == 0
    assert infer(folder, "--resume") == 0
    done = tmp_path / "out" / "images" / "done.json"
    assert done.exists()
    assert infer(folder, "--resume", "--strict") == 1
    assert not done.exists()


def test_missing_source_is_exit_3_also_if_it_was_done(infer, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", length=3, seed=0)
    assert infer(clip) == 0
    clip.unlink()
    assert infer(clip, "--resume") == 3
    assert infer(clip, "--overwrite") == 3
    assert (tmp_path / "out" / "a" / "done.json").exists()


def test_batched_sources_write_the_files_of_separate_runs(weights, tmp_path):
    clips = [write_clip(tmp_path / f"{n}.mp4", length=3 + 2 * n, seed=n) for n in range(4)]
    tool = load_tool()
    assert tool.main(order(weights, tmp_path / "alone", *clips)) == 0
    assert tool.main(order(weights, tmp_path / "beside", *clips, "--batch-sources", 3)) == 0
    alone, beside = (objects_of(tmp_path / name) for name in ("alone", "beside"))
    assert alone.keys() == beside.keys()
    for name, rows in alone.items():
        assert [row[:2] for row in rows] == [row[:2] for row in beside[name]]
        np.testing.assert_allclose(
            [row[2:] for row in rows], [row[2:] for row in beside[name]], atol=0.011
        )
    entries = summary_of(tmp_path / "beside")["sources"]
    assert [entry["folder"] for entry in entries] == ["0", "1", "2", "3"]


def test_batched_sources_have_the_key_frames_of_separate_runs(weights, tmp_path):
    clips = [write_clip(tmp_path / f"{n}.mp4", length=3 + 2 * n, seed=n) for n in range(3)]
    for name, count in (("alone", 1), ("beside", 3)):
        given = order(weights, tmp_path / name, *clips, "--batch-sources", count)
        assert load_tool().main([*given, "--key-every", "2"]) == 0
    alone, beside = (objects_of(tmp_path / name) for name in ("alone", "beside"))
    for name, rows in alone.items():
        assert [row[:2] for row in rows] == [row[:2] for row in beside[name]]


def objects_of(out):
    """By folder, frame, label and box of all objects, in an order that ties do not change."""
    found = {}
    for path in out.glob("*/detections.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()][1:-1]
        rows = [(line["index"], o["label"], *o["box"]) for line in lines for o in line["objects"]]
        found[path.parent.name] = sorted(rows, key=lambda row: [*row[:2], *np.round(row[2:], 1)])
    return found


def test_bad_source_in_a_batch_does_not_affect_the_rest(weights, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", length=4, seed=0)
    given = order(weights, tmp_path / "out", clip, tmp_path / "none.mp4", "--batch-sources", 2)
    assert load_tool().main(given) == 1
    codes = [entry["exit_code"] for entry in summary_of(tmp_path / "out")["sources"]]
    assert codes == [0, 3]


def test_window_of_several_sources_is_refused(weights, tmp_path):
    assert load_tool().main(order(weights, tmp_path, "--show", "--batch-sources", 2)) == 2
