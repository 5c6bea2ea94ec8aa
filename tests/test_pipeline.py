"""Threads and batches change no result."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_stream import Counter

import rnndet.inference.stream
from conftest import tiny_model
from rnndet.errors import InputError, OutputError
from rnndet.inference.pipeline import DEPTH, WriteBehind, prefetch
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.inference.runtimes.base import scaled
from rnndet.inference.runtimes.batching import Batcher, Member
from rnndet.inference.runtimes.torch_runtime import TorchRuntime
from rnndet.inference.stream import Stream, run_video
from rnndet.structures import Detections, Frame, FrameResult, VideoInfo
from rnndet.tracking import ByteTracker
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sink import JsonLinesSink
from rnndet.video.sources.base import Source

SIZE_HW = (64, 96)


def noise(count, *, seed=0, size_hw=SIZE_HW):
    random = np.random.default_rng(seed)
    for index in range(count):
        yield Frame(random.integers(0, 256, (*size_hw, 3), np.uint8), index, index / 25)


def results(count):
    return [FrameResult(frame, Detections.empty()) for frame in noise(count)]


def threads(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


def failing(count, error):
    yield from noise(count)
    raise error


# prefetch


def test_prefetched_frames_are_in_order():
    assert [f.index for f in prefetch(noise(20))] == list(range(20))


def test_error_of_the_source_comes_after_the_frames_before_it():
    seen = []
    with pytest.raises(InputError, match="broken"):
        seen.extend(f.index for f in prefetch(failing(5, InputError("broken"))))
    frames, kept = prefetch(failing(5, InputError("broken"))), []
    with pytest.raises(InputError):
        for frame in frames:
            kept.append(frame.index)
    assert kept == [0, 1, 2, 3, 4]


def test_few_frames_are_prefetched_of_a_long_video():
    read = []

    def source():
        for frame in noise(1000):
            read.append(frame.index)
            yield frame

    frames = prefetch(source())
    next(frames)
    time.sleep(0.2)
    assert len(read) <= DEPTH + 2  # those that wait, the one that is held out, the one that came
    frames.close()


def test_closing_the_iterator_ends_the_thread():
    frames = prefetch(noise(1000))
    next(frames)
    frames.close()
    assert not threads("prefetch")


# writing behind


def test_results_are_written_in_order_and_all_at_the_end():
    written = []
    with WriteBehind(lambda result: written.append(result.frame.index)) as writer:
        for result in results(20):
            writer.put(result)
    assert written == list(range(20))
    assert not threads("write behind")


def test_error_of_a_file_is_raised_and_nothing_is_written_after_it():
    written = []

    def write(result):
        if result.frame.index == 2:
            raise OutputError("full")
        written.append(result.frame.index)

    with pytest.raises(OutputError, match="full"), WriteBehind(write) as writer:
        for result in results(50):
            writer.put(result)
    assert written == [0, 1]


def test_error_of_the_last_result_is_raised_on_leaving():
    def write(result):
        raise OutputError("full")

    with pytest.raises(OutputError, match="full"), WriteBehind(write) as writer:
        writer.put(results(1)[0])


def test_error_of_a_file_is_raised_also_at_ctrl_c():
    def write(result):
        raise OutputError("full")

    with pytest.raises(OutputError, match="full"), WriteBehind(write) as writer:
        writer.put(results(1)[0])
        raise KeyboardInterrupt


@pytest.mark.parametrize("error", [InputError("broken"), KeyboardInterrupt()])
def test_results_before_an_error_are_written(error):
    written = []

    def write(result):
        time.sleep(0.01)
        written.append(result.frame.index)

    with pytest.raises(type(error)), WriteBehind(write) as writer:
        for result in results(4):
            writer.put(result)
        raise error
    assert written == [0, 1, 2, 3]


def test_depth_0_writes_on_the_same_thread():
    written_by = []
    with WriteBehind(lambda _: written_by.append(threading.current_thread()), depth=0) as writer:
        writer.put(results(1)[0])
    assert written_by == [threading.main_thread()]


class Listed(list, Source):
    """Frames as a source."""

    info = VideoInfo("clip", "clip", SIZE_HW[1], SIZE_HW[0], None, None)


def bright_then_dark():
    for index, level in enumerate((200, 200, 0, 0)):
        yield Frame(np.full((*SIZE_HW, 3), level, np.uint8), index, index / 10)


def test_run_of_files_begins_a_scene_as_the_stream_does(tmp_path):
    class CutAtTwo(SceneCut):
        seen = 0

        def update(self, image, cells=None):
            self.seen += 1
            return self.seen == 3

        def reset(self):
            self.seen = 0

    stream, found = Stream(Counter(), cuts=CutAtTwo()), []
    expected = [r.detections.scores.tolist() for r in run_video(stream, bright_then_dark())]
    run_source(
        stream, Listed(bright_then_dark()), tmp_path, RunOptions(save=()),
        on_frame=lambda result: found.append(result.detections.scores.tolist()),
    )  # fmt: skip
    assert found == expected


@pytest.mark.parametrize("run", ["step by step", "into files"])
def test_tracker_gets_the_times_of_the_frames(run, tmp_path):
    class Timed(ByteTracker):
        def update(self, found, *, time=None):
            times.append(time)
            return super().update(found, time=time)

    stream, times = Stream(Counter(), Timed()), []
    if run == "into files":
        run_source(stream, Listed(bright_then_dark()), tmp_path, RunOptions(save=()))
    else:
        list(run_video(stream, bright_then_dark()))
    assert times == [0.0, 0.1, 0.2, 0.3]


def test_tracker_and_stream_use_the_same_threshold():
    """Objects below the tracker's own threshold of 0.3 get ids where they are to be shown."""
    stream = make_stream(Counter((0.25, 0.24, 0.23, 0.22)), tracker="byte", min_score=0.1)
    *_, last = run_video(stream, bright_then_dark())
    assert (last.detections.ids > 0).all()


def test_live_source_is_read_by_the_stream_itself(tmp_path):
    class Live(Listed):
        is_live = True

        def __iter__(self):
            assert threading.current_thread() is threading.main_thread()
            return super().__iter__()

    stream = make_stream(tiny_model())
    assert run_source(stream, Live(noise(3)), tmp_path, RunOptions(save=())).frames == 3


def test_frames_are_scaled_and_reduced_by_the_reading_thread(tmp_path, monkeypatch):
    seen = {}

    def recorded(name, function):
        def call(*arguments):
            seen.setdefault(name, set()).add(threading.current_thread().name)
            return function(*arguments)

        return call

    monkeypatch.setattr(rnndet.inference.stream, "scaled", recorded("scaled", scaled))
    reduce = rnndet.video.scene_cut.reduce_to_cells
    monkeypatch.setattr(rnndet.video.scene_cut, "reduce_to_cells", recorded("reduced", reduce))
    run_source(make_stream(Counter()), Listed(noise(5)), tmp_path, RunOptions(save=()))
    assert seen == {"scaled": {"prefetch"}, "reduced": {"prefetch"}}


def test_results_are_the_same_with_and_without_threads(tmp_path):
    lines = []
    for is_threaded in (True, False):
        stream = make_stream(Counter(), tracker="byte", min_score=0.1)
        frames = [*bright_then_dark(), *noise(6, seed=1)]
        frames = [Frame(f.image, k, k / 10, restart=k == 7) for k, f in enumerate(frames)]
        options = RunOptions(save=(), is_threaded=is_threaded, overwrite=True)
        run_source(stream, Listed(frames), tmp_path, options)
        text = (tmp_path / "clip" / "detections.jsonl").read_text().splitlines()
        lines.append(text[:-1])  # the last has times
    assert lines[0] == lines[1] and any("restart" in line for line in lines[0])


def test_ready_frame_changes_no_state():
    stream, (frame, other) = make_stream(Counter()), noise(2)
    stream.step(frame)
    before = str(stream.state_dict())
    assert stream.ready(Frame(other.image, 1, 0.1, restart=True)) is not None
    assert stream.ready(Frame(other.image[..., :2], 1, 0.1)) is None  # which step refuses
    assert str(stream.state_dict()) == before


def test_run_that_cannot_write_leaves_no_thread(tmp_path, monkeypatch):
    def write(self, result, classes):
        raise OutputError("disk full")

    monkeypatch.setattr(JsonLinesSink, "write", write)
    with pytest.raises(OutputError, match="disk full"):
        run_source(make_stream(tiny_model()), Listed(noise(30)), tmp_path, RunOptions(save=()))
    assert not threads("prefetch") and not threads("write behind")


# several videos at once


def shown(runtime, video):
    stream = Stream(runtime, ByteTracker(min_score=0.01), min_score=0.01)
    return [result.detections for result in run_video(stream, video)]


def together(videos, *, runtime=None):
    batcher = Batcher(runtime or TorchRuntime(tiny_model()))

    def one(video):
        with Member(batcher) as member:
            return shown(member, video)

    with ThreadPoolExecutor(len(videos)) as pool:
        return list(pool.map(one, videos))


def test_batched_videos_of_different_lengths_equal_separate_runs():
    lengths = (6, 3, 1)
    found = together([noise(n, seed=n) for n in lengths])
    for n, results_of in zip(lengths, found, strict=True):
        alone = shown(TorchRuntime(tiny_model()), noise(n, seed=n))
        assert [d.ids.tolist() for d in results_of] == [d.ids.tolist() for d in alone]
        for a, b in zip(results_of, alone, strict=True):
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_videos_of_different_sizes_run_concurrently():
    found = together([noise(3), noise(3, size_hw=(64, 64))])
    alone = shown(TorchRuntime(tiny_model()), noise(3, size_hw=(64, 64)))
    for a, b in zip(found[1], alone, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_boxes_are_in_pixels_of_the_original_frame_of_each_video():
    """Frames of both sizes are the same image to the network."""
    runtime = TorchRuntime(tiny_model())
    (image,) = (frame.image for frame in noise(1))
    sizes = [SIZE_HW, (2 * SIZE_HW[0], 2 * SIZE_HW[1])]
    batcher = Batcher(runtime)

    def one(size_hw):
        with Member(batcher) as member:
            barrier.wait()
            return member.detect([image], [size_hw], None)[0][0]

    barrier = threading.Barrier(2)
    runtime.score_threshold = 0.001  # of a call without limits
    with ThreadPoolExecutor(2) as pool:
        small, large = pool.map(one, sizes)
    np.testing.assert_allclose(large.boxes, 2 * small.boxes, atol=1e-3)


def test_threshold_of_a_member_without_limits_is_that_of_the_model():
    runtime = TorchRuntime(tiny_model())
    runtime.score_threshold = 0.25
    assert Member(Batcher(runtime)).score_threshold == 0.25


def test_frames_of_the_same_size_are_a_single_call():
    class Counting(TorchRuntime):
        sizes: tuple[int, ...] = ()

        def detect(self, images, *others, **options):
            self.sizes += (len(images),)
            return super().detect(images, *others, **options)

    runtime, start = Counting(tiny_model()), threading.Barrier(3)

    def video(seed):
        for frame in noise(4, seed=seed):
            if frame.index == 0:
                start.wait()  # until all take part
            yield frame

    together([video(seed) for seed in range(3)], runtime=runtime)
    assert runtime.sizes == (3, 3, 3, 3)


def test_error_of_the_model_reaches_every_video():
    class Broken(TorchRuntime):
        def detect(self, *_, **__):
            raise RuntimeError("out of memory")

    batcher, failed = Batcher(Broken(tiny_model())), []

    def one(video):
        with Member(batcher) as member, pytest.raises(RuntimeError, match="out of memory"):
            shown(member, video)
        failed.append(1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, [noise(2), noise(2)]))
    assert failed == [1, 1]


def test_failed_video_does_not_block_the_batch():
    batcher = Batcher(TorchRuntime(tiny_model()))

    def bad():
        with Member(batcher) as member, pytest.raises(InputError):
            shown(member, failing(1, InputError("broken")))

    def good():
        with Member(batcher) as member:
            return len(shown(member, noise(5)))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(bad), pool.submit(good)
        first.result(timeout=60)
        assert second.result(timeout=60) == 5
