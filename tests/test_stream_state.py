"""A recording in parts, with the state saved in a file, equals the whole recording."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conftest import tiny_config
from rnndet.errors import WeightsError
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.inference.stream import Stream
from rnndet.inference.stream_state import Position, load_stream, save_stream
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.models.video_detector import build_model
from rnndet.structures import Frame, VideoInfo
from rnndet.video.image import write_image
from rnndet.video.sources.base import Source
from rnndet.video.sources.open import open_source
from rnndet.video.synthetic.clip import SyntheticClip

LENGTH, HALF = 12, 5
OPTIONS = {"min_score": 0.01}


def model(seed=0):
    import torch

    torch.manual_seed(seed)
    return build_model(tiny_config().model, ("cube", "ball"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """The whole, and the same images in two folders."""
    root = tmp_path_factory.mktemp("recording")
    for frame in SyntheticClip(1, length=LENGTH, size_hw=(64, 80)):
        for folder in ("whole", "first" if frame.index < HALF else "second"):
            (root / folder).mkdir(exist_ok=True)
            write_image(root / folder / f"{frame.index:02d}.png", frame.image)
    return root


def run(source, out, *, options=OPTIONS, stop=lambda: False, **run_options) -> list[dict]:
    """The frame lines of one run with a new stream."""
    stream = make_stream(model().eval(), **options)
    with open_source(source) as opened:
        summary = run_source(stream, opened, out, RunOptions(save=(), **run_options), stop=stop)
    lines = (summary.folder / "detections.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["type"] == "frame"]


def whole_and_parts(recording, out, options) -> tuple[list[dict], list[dict]]:
    """The frame lines of the recording, and of its two files with the state carried between."""
    whole = run(recording / "whole", out, options=options)
    state = out / "state.npz"
    parts = run(recording / "first", out, options=options, save_state=state)
    return whole, parts + run(recording / "second", out, options=options, load_state=state)


@pytest.mark.parametrize("tracker", ["none", "iou", "sort", "byte", "oc_sort"])
def test_two_files_give_the_results_of_the_whole_recording(recording, tmp_path, tracker):
    whole, parts = whole_and_parts(recording, tmp_path, OPTIONS | {"tracker": tracker})
    assert any(line["objects"] for line in whole[HALF:])
    assert parts == whole


@pytest.mark.parametrize("every", [2, 3, 4])
def test_key_frames_continue_in_the_next_file(recording, tmp_path, every):
    whole, parts = whole_and_parts(recording, tmp_path, OPTIONS | {"key_every": every})
    assert [bool(line.get("followed")) for line in whole] == [k % every > 0 for k in range(LENGTH)]
    assert parts == whole


def test_state_of_other_key_frames_is_refused(tmp_path):
    save_stream(tmp_path / "s.npz", make_stream(model(), **OPTIONS), Position(0, 0.0))
    with pytest.raises(WeightsError, match="use the same options"):
        load_stream(tmp_path / "s.npz", make_stream(model(), key_every=2, **OPTIONS))


def test_without_the_state_the_second_file_differs(recording, tmp_path):
    whole = run(recording / "whole", tmp_path)
    alone = run(recording / "second", tmp_path)
    assert [line["objects"] for line in alone] != [line["objects"] for line in whole[HALF:]]


def test_the_end_of_the_same_file_keeps_its_numbers(recording, tmp_path):
    state = tmp_path / "state.pt"
    run(recording / "whole", tmp_path, max_frames=2, save_state=state)
    stream = make_stream(model().eval(), **OPTIONS)
    assert load_stream(state, stream) == Position(1, 0.04)


def test_times_continue_at_the_rate_of_the_source(tmp_path):
    class FrameList(list, Source):
        info = VideoInfo("clip", "clip", 80, 64, Fraction(10), None)

    frames = [Frame(np.zeros((64, 80, 3), np.uint8), k, k / 10) for k in range(2)]
    state, times = tmp_path / "state.npz", []
    for name, carried in (("a", {"save_state": state}), ("b", {"load_state": state})):
        run_source(
            make_stream(model().eval(), **OPTIONS), FrameList(frames), tmp_path,
            RunOptions(name=name, save=(), **carried),
            on_frame=lambda result: times.append(result.frame.time),
        )  # fmt: skip
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_state_of_other_weights_is_refused(tmp_path):
    save_stream(tmp_path / "s.pt", make_stream(model(), **OPTIONS), Position(0, 0.0))
    with pytest.raises(WeightsError, match="the state of other weights"):
        load_stream(tmp_path / "s.pt", make_stream(model(seed=1), **OPTIONS))


def test_state_of_another_tracker_is_refused(tmp_path):
    save_stream(tmp_path / "s.pt", make_stream(model(), **OPTIONS), Position(0, 0.0))
    with pytest.raises(WeightsError, match="use the same options"):
        load_stream(tmp_path / "s.pt", make_stream(model(), tracker="iou", **OPTIONS))


def test_refusal_says_which_option_differs_and_how(tmp_path):
    save_stream(tmp_path / "s.npz", make_stream(model(), **OPTIONS), Position(0, 0.0))
    with pytest.raises(WeightsError) as caught:
        load_stream(tmp_path / "s.npz", make_stream(model(), **OPTIONS | {"min_score": 0.5}))
    line = str(caught.value)
    assert 'min_score was "0.01", is "0.5"; use the same' in line
    assert "{" not in line and "tracker" not in line


def test_state_of_other_tracker_options_is_refused(tmp_path):
    save_stream(tmp_path / "s.pt", make_stream(model(), **OPTIONS), Position(0, 0.0))
    changed = {"max_age": 2.0}
    with pytest.raises(WeightsError, match="tracker options"):
        load_stream(tmp_path / "s.pt", make_stream(model(), tracker_options=changed, **OPTIONS))


def test_state_of_other_classes_is_refused(tmp_path):
    save_stream(tmp_path / "s.pt", make_stream(model(), **OPTIONS), Position(0, 0.0))
    with pytest.raises(WeightsError, match="use the same options"):
        load_stream(tmp_path / "s.pt", make_stream(model(), classes=["ball"], **OPTIONS))


def test_saved_options_are_those_of_earlier_versions(tmp_path):
    save_stream(tmp_path / "s.npz", Stream(model(), min_score=0.01), Position(0, 0.0))
    with np.load(tmp_path / "s.npz") as file:
        tree = json.loads(file["tree"].tobytes())
    none = "NoneType"
    expected = {"tracker": none, "scene cuts": none, "min_score": "0.01", "key frames": "all"}
    assert tree["options"] == expected
    assert [tree["stream"][part] for part in ("tracker", "cuts", "keys")] == [None] * 3


def test_weights_are_refused_as_a_state(tmp_path):
    own = model()
    save_checkpoint(tmp_path / "w.pt", model_content(own, tiny_config(), step=0))
    with pytest.raises(WeightsError, match="no stream state"):
        load_stream(tmp_path / "w.pt", make_stream(own, **OPTIONS))


def test_state_is_written_also_after_a_stop(recording, tmp_path):
    state = tmp_path / "state.pt"
    run(recording / "whole", tmp_path, stop=lambda: True, save_state=state)
    assert load_stream(state, make_stream(model(), **OPTIONS)) == Position(0, 0.0)


DAMAGES = {
    "cut short": lambda data: data[:-100],
    "bit of an array": lambda data: flipped(data, data.index(b"\x93NUMPY") + 200),
    "compression method": lambda data: flipped(data, data.index(b"PK\x01\x02") + 10),
    "flags": lambda data: flipped(data, data.index(b"PK\x01\x02") + 8),
    "place of an array": lambda data: flipped(data, data.rindex(b"PK\x03\x04") + 29),
}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 32]) + data[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_state_is_refused(tmp_path, damage):
    stream, path = make_stream(model(), **OPTIONS), tmp_path / "s.npz"
    save_stream(path, stream, Position(0, 0.0))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(WeightsError, match=r"damaged|incomplete"):
        load_stream(path, stream)
