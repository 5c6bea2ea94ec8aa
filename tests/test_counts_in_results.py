"""Counts of regions and lines in the results of a run: JSON, summary, video, saved state."""

import json

import numpy as np
import pytest
from test_stream import Counter

import rnndet
from conftest import detections
from rnndet.errors import RnndetError, WeightsError
from rnndet.inference.counting import Regions, read_regions
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.structures import Frame, LineCount
from rnndet.video.draw import Annotator
from rnndet.video.image import read_image, write_image
from rnndet.video.sources.open import open_source

LENGTH, SIZE_HW = 12, (80, 96)
REGIONS = Regions(
    regions={"left half": ((0, 0), (48, 0), (48, 80), (0, 80))},
    lines={"middle": ((48, 80), (48, 0))},
)
OPTIONS = {"tracker": "iou", "scene_cuts": False, "regions": REGIONS}


class Walker(Counter):
    """A runtime that reports a box that moves 8 pixels to the right in each frame."""

    def detect(self, images, original_sizes, state, *, limits=None, timer=None):
        step = 0 if state is None else state
        x = 4 + 8 * step
        return [detections([[x - 8, 30, x + 8, 46]], [0.9], [1])], step + 1

    def from_arrays(self, arrays):
        return None if arrays is None else float(arrays["0"][0].item())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video as images, and its two halves."""
    root = tmp_path_factory.mktemp("video")
    for index in range(LENGTH):
        for name in ("whole", "first" if index < 5 else "second"):
            (root / name).mkdir(exist_ok=True)
            write_image(root / name / f"{index:02d}.png", np.full((*SIZE_HW, 3), 90, np.uint8))
    return root


def run(source, out, **options):
    """The summary, and the lines of the JSON."""
    with open_source(source) as opened:
        summary = run_source(make_stream(Walker(), **OPTIONS), opened, out, RunOptions(**options))
    lines = (summary.folder / "detections.jsonl").read_text(encoding="utf-8").splitlines()
    return summary, [json.loads(line) for line in lines]


def test_every_frame_and_the_summary_have_the_counts(folder, tmp_path):
    summary, (header, *frames, last) = run(folder / "whole", tmp_path, save=())
    assert header["regions"] == REGIONS.to_dict()
    halves = [line["counts"]["regions"]["left half"] for line in frames]
    assert [half["inside"] for half in halves[:2]] == [{"ball": 1}] * 2
    assert halves[-1] == {"inside": {}, "outside": {"ball": 1}, "entered": {}, "left": {"ball": 1}}
    middle = [line["counts"]["lines"]["middle"] for line in frames]
    assert middle[0] == {"to_left": {}, "to_right": {}}
    assert middle[-1] == {"to_left": {}, "to_right": {"ball": 1}}
    assert last["counts"] == frames[-1]["counts"]
    assert "middle: to the left none; to the right ball 1" in summary.lines()
    assert "left half: entered by none; left by ball 1" in summary.lines()


def test_the_counts_have_a_file_of_their_own(folder, tmp_path):
    summary, lines = run(folder / "whole", tmp_path, save=("csv",))
    assert [path.name for path in summary.files] == [
        "detections.jsonl", "detections.csv", "counts.json",
    ]  # fmt: skip
    content = json.loads((summary.folder / "counts.json").read_text(encoding="utf-8"))
    assert content["counts"] == lines[-1]["counts"]
    assert (content["frames"], content["where"]) == (LENGTH, REGIONS.to_dict())


def test_results_without_regions_have_no_counts(folder, tmp_path):
    run(folder / "whole", tmp_path, save=())
    with open_source(folder / "whole") as source:
        summary = run_source(
            make_stream(Walker(), tracker="iou"), source, tmp_path,
            RunOptions(save=(), overwrite=True),
        )  # fmt: skip
    assert [path.name for path in summary.folder.iterdir()] == ["detections.jsonl"]
    text = (summary.folder / "detections.jsonl").read_text(encoding="utf-8")
    assert "counts" not in text and "regions" not in text


def test_counts_need_regions(folder, tmp_path):
    with open_source(folder / "whole") as source, pytest.raises(RnndetError, match="use `regions`"):
        run_source(make_stream(Walker()), source, tmp_path, RunOptions(save=("counts",)))


def test_a_recording_in_parts_has_the_counts_of_the_whole(folder, tmp_path):
    _, whole = run(folder / "whole", tmp_path, save=())
    state = tmp_path / "state.npz"
    _, first = run(folder / "first", tmp_path, save=(), save_state=state)
    _, second = run(folder / "second", tmp_path, save=(), load_state=state)
    parts = [line["counts"] for line in (*first[1:-1], *second[1:-1])]
    assert parts == [line["counts"] for line in whole[1:-1]]


def test_a_saved_state_of_other_regions_is_refused(folder, tmp_path):
    state = tmp_path / "state.npz"
    run(folder / "first", tmp_path, save=(), save_state=state)
    stream = make_stream(Walker(), tracker="iou", scene_cuts=False)
    with open_source(folder / "second") as source, pytest.raises(WeightsError, match="same optio"):
        run_source(stream, source, tmp_path, RunOptions(save=(), load_state=state))


def test_track_gives_the_counts_and_takes_a_file(folder, tmp_path):
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(REGIONS.to_dict()), encoding="utf-8")
    assert read_regions(path).to_dict() == REGIONS.to_dict()
    *_, last = rnndet.track(Walker(), folder / "whole", **OPTIONS | {"regions": path})
    assert last.counts.lines["middle"] == LineCount({}, {"ball": 1})


def test_counts_begin_anew_with_each_video(folder):
    videos = [folder / "whole"] * 2
    results = list(rnndet.track(Walker(), videos, **OPTIONS))
    first, second = results[:LENGTH], results[LENGTH:]
    assert [result.counts for result in first] == [result.counts for result in second]


def test_regions_without_a_tracker_are_refused_at_the_call():
    with pytest.raises(RnndetError, match="use a tracker"):
        rnndet.track(Walker(), [], **OPTIONS | {"tracker": "none"})


def test_regions_lines_and_their_counts_are_drawn(folder, tmp_path):
    plain, _ = run(folder / "whole", tmp_path, save=("frames",))
    stream = make_stream(Walker(), tracker="iou", scene_cuts=False)
    with open_source(folder / "whole") as source:
        bare = run_source(stream, source, tmp_path / "bare", RunOptions(save=("frames",)))
    names = [f"frames/annotated_{index:06d}.jpg" for index in (0, LENGTH - 1)]
    for name in names:
        with_lines, without = (read_image(one.folder / name) for one in (plain, bare))
        change = np.abs(with_lines.astype(int) - without).sum(-1)
        assert change[60:, 46:51].mean() > 30  # the line
        assert change[60:, 60:].max() < 30  # no change elsewhere


def test_a_drawn_frame_leaves_the_frame_itself_unchanged():
    image = np.full((*SIZE_HW, 3), 90, np.uint8)
    stream = make_stream(Walker(), **OPTIONS)
    result = stream.step(Frame(image, 0, 0.0))
    annotator = Annotator(stream.runtime.classes, regions=REGIONS.regions, lines=REGIONS.lines)
    assert not np.array_equal(annotator.draw(result), image)
    assert (image == 90).all()
