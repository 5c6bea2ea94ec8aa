"""Another input size than the model's: of streams, runtimes, infer, evaluate and saved states."""

import json
from dataclasses import replace

import numpy as np
import pytest

from conftest import SIZE_HW, error_line, frame_image, tiny_config, tiny_model
from conftest import write_coco_vid as write_set
from rnndet.cli.evaluate import main as evaluate
from rnndet.cli.infer import main as infer
from rnndet.errors import RnndetError, WeightsError
from rnndet.inference.run import make_stream, track
from rnndet.inference.runtimes.export_onnx import export_onnx
from rnndet.inference.runtimes.onnx_runtime import OnnxRuntime
from rnndet.inference.runtimes.openvino_runtime import OpenVinoRuntime
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream
from rnndet.inference.stream_state import Position, load_stream, save_stream
from rnndet.models.checkpoint import model_content, save_checkpoint
from rnndet.specs import InputSpec
from rnndet.structures import Frame
from rnndet.video.sink import VideoSink

SPEC = InputSpec(320, 400, None, 32, (0.0,) * 3, (1.0,) * 3)


def frames(count: int) -> list[Frame]:
    return [Frame(frame_image(index, 0)[0], index, index / 10) for index in range(count)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(path, model_content(tiny_model(), tiny_config(), step=0))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    with VideoSink(path, size_hw=SIZE_HW, fps=10) as sink:
        for frame in frames(3):
            sink.write(frame.image)
    return path


class Watched(TorchRuntime):
    """Keeps the size of the last image it was given."""

    def detect(self, images, *given, **options):
        self.seen = images[0].shape[:2]
        return super().detect(images, *given, **options)


def test_both_edges_are_scaled_alike():
    found = SPEC.resized(200)
    assert (found.shorter, found.longer) == (160, 200)
    assert found == replace(SPEC, shorter=160, longer=200)
    assert (found.scaled_hw(1080, 1920), found.scaled_hw(1000, 1000)) == ((112, 200), (160, 160))


def test_the_own_size_changes_nothing():
    assert SPEC.resized(400) == SPEC


@pytest.mark.parametrize("size", [-1, 0, 31, 4097])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(RnndetError, match=f"size = {size}; expected .* 32 to 4096"):
        SPEC.resized(size)
    assert (SPEC.resized(32).longer, SPEC.resized(4096).longer) == (32, 4096)


def test_models_with_one_size_say_so():
    with pytest.raises(RnndetError, match="has a fixed input size"):
        replace(SPEC, fixed_hw=(320, 320)).resized(256)
    with pytest.raises(RnndetError, match="scales every frame itself"):
        replace(SPEC, as_float=True).resized(256)


def test_the_model_gets_frames_of_the_size_and_boxes_are_those_of_the_frame():
    runtime = Watched(tiny_model())
    (result,) = track(runtime, frames(1), size=48, min_score=0.01)
    assert runtime.seen == (32, 48)
    assert result.detections.boxes[:, 2].max() > 48  # pixels of the frame, which has 96


def test_streams_of_two_sizes_share_a_model():
    runtime = Watched(tiny_model())
    small, own = Stream(runtime, size=48), Stream(runtime)
    alone = Stream(tiny_model())
    for frame in frames(3):
        small.step(frame)
        assert runtime.seen == (32, 48)
        found = own.step(frame).detections.boxes
        assert runtime.seen == SIZE_HW
        assert np.array_equal(found, alone.step(frame).detections.boxes)


@pytest.mark.parametrize("graph_runtime", [OnnxRuntime, OpenVinoRuntime])
def test_one_graph_takes_every_size_and_equals_torch(tmp_path, graph_runtime):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    export_onnx(tiny_model(), tmp_path / "tiny.onnx")
    graph = graph_runtime(tmp_path / "tiny.onnx")
    for size in (48, 64, 160):
        ours = make_stream(tiny_model(), min_score=0.05, tracker="none", size=size)
        theirs = make_stream(graph, min_score=0.05, tracker="none", size=size)
        for frame in frames(3):
            a, b = (stream.step(frame).detections for stream in (ours, theirs))
            assert len(a) > 0
            np.testing.assert_allclose(np.sort(b.scores), np.sort(a.scores), atol=1e-4)


def test_a_state_of_another_size_is_refused(tmp_path):
    small = make_stream(tiny_model(), size=48)
    small.step(frames(1)[0])
    save_stream(tmp_path / "s.npz", small, Position(0, 0.0))
    load_stream(tmp_path / "s.npz", make_stream(tiny_model(), size=48))
    for size in (None, 64):
        with pytest.raises(WeightsError, match="size was"):
            load_stream(tmp_path / "s.npz", make_stream(tiny_model(), size=size))


def test_infer_runs_at_the_size_and_records_it(clip, weights, tmp_path):
    given = [clip, "--weights", weights, "--device", "cpu", "--no-video", "--overwrite"]
    results = {}
    for size in (None, 48):
        more = [] if size is None else ["--size", size]
        out = tmp_path / str(size)
        arguments = [*given, "--score-threshold", 0.05, "--out", out, *more]
        assert infer([str(argument) for argument in arguments]) == 0
        header, *lines = map(json.loads, (out / "square" / "detections.jsonl").open())
        assert header.get("size") == size
        record = json.loads((out / "square" / "done.json").read_text())
        assert record["job"]["options"].get("size") == size
        results[size] = [line.get("objects") for line in lines]
    assert results[None] != results[48]


def test_infer_says_a_wrong_size_in_one_line(clip, weights, tmp_path, capsys):
    arguments = [clip, "--weights", weights, "--out", tmp_path / "out", "--size", 20]
    assert infer([str(argument) for argument in arguments]) == 2
    assert error_line(capsys).startswith("infer: size = 20; expected")


def test_evaluate_runs_at_the_size_and_records_it(weights, tmp_path, capsys):
    write_set(tmp_path)
    given = [weights, "--data", tmp_path, "--split", "train", "--out", tmp_path / "out"]
    arguments = [str(argument) for argument in given]
    for size in (None, 48):
        assert evaluate([*arguments, *([] if size is None else ["--size", str(size)])]) == 0
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["protocol"].get("size") == size
    capsys.readouterr()
    assert evaluate([*arguments, "--size", "48", "--ablate-memory"]) == 2
    assert "size" in error_line(capsys)


def test_evaluate_of_stored_predictions_has_no_size(tmp_path, capsys):
    assert evaluate(["--predictions", "p.npz", "--size", "48"]) == 2
    assert "--size: only while weights are run" in error_line(capsys)
