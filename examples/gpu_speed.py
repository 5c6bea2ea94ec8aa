"""Frames a second of a model on a GPU: a stream, one and 16 videos in a call, by mode; kernels.

python examples/gpu_speed.py everyday clip.mp4
python examples/gpu_speed.py everyday clip.mp4 --device cpu --frames 8 --modes plain

Prints one line of JSON for each measurement. The share of the GPU is what nvidia-smi calls
utilisation: the share of the time in which a kernel runs.
"""

import argparse
import json
import statistics
import subprocess
import threading
import time

import cv2
import torch
from torch.profiler import ProfilerActivity, profile

from rnndet.inference.runtimes import open_runtime
from rnndet.inference.runtimes.base import Runtime
from rnndet.inference.stream import Stream
from rnndet.tracking import ByteTracker
from rnndet.video.sources.open import open_source

MODES = {
    "plain": {},
    "half": {"half": True},
    "compiled": {"compiled": True},
    "half_compiled": {"half": True, "compiled": True},
}


class GpuShare:
    """Samples nvidia-smi's utilisation in a thread; `mean` is None without a GPU."""

    def __enter__(self) -> "GpuShare":
        self.samples: list[float] = []
        self.is_done = False
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_done = True
        self.thread.join()

    def _sample(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self.is_done and torch.cuda.is_available():
            answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
            self.samples += [float(line) for line in answer.split()[:1]]
            time.sleep(0.15)

    @property
    def mean(self) -> float | None:
        return round(statistics.mean(self.samples[1:])) if len(self.samples) > 1 else None


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def stream_speed(runtime: Runtime, frames: list, rounds: int = 2) -> dict:
    """A whole stream without decoding: scaling, model, tracker, scene cuts."""
    stream = Stream(runtime, tracker=ByteTracker())
    began = time.perf_counter()
    for frame in frames[:12]:
        stream.step(frame)
    warm_up, times = time.perf_counter() - began, []
    with GpuShare() as share:
        for _ in range(rounds):
            stream.reset()
            for frame in frames:
                began = time.perf_counter()
                stream.step(frame)
                times.append(time.perf_counter() - began)
    return {
        "fps": round(len(times) / sum(times), 1),
        "median_ms": round(statistics.median(times) * 1e3, 2),
        "warm_up_s": round(warm_up, 1),
        "gpu_share": share.mean,
    }


def batch_speed(runtime: Runtime, frames: list, batch: int, calls: int) -> dict:
    """`Runtime.detect` on one frame of each of `batch` videos."""
    height, width = frames[0].image.shape[:2]
    spec = runtime.input_spec
    scale = min(spec.shorter / min(height, width), spec.longer / max(height, width))
    size = round(width * scale), round(height * scale)
    images = [cv2.resize(frame.image, size) for frame in (frames * batch)[:batch]]
    sizes, state = [(height, width)] * batch, None
    for _ in range(6):
        _, state = runtime.detect(images, sizes, state)
    wait(runtime.device)
    with GpuShare() as share:
        began = time.perf_counter()
        for _ in range(calls):
            _, state = runtime.detect(images, sizes, state)
        wait(runtime.device)
        seconds = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for _ in range(5):
            _, state = runtime.detect(images, sizes, state)
        wait(runtime.device)
    kernels = [e for e in profiled.events() if str(e.device_type).endswith("CUDA")]
    return {
        "batch": batch,
        "size": size,
        "fps": round(batch * calls / seconds, 1),
        "ms_a_call": round(seconds / calls * 1e3, 2),
        "gpu_share": share.mean,
        "kernels_a_call": len(kernels) / 5,
        "kernel_ms_a_call": round(sum(e.device_time for e in kernels) / 5e3, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    args = parser.parse_args()
    frames = []
    with open_source(args.source) as source:
        for frame in source:
            frames.append(frame)
            if len(frames) == args.frames:
                break
    for mode in args.modes:
        runtime, _ = open_runtime(args.model, device=args.device, **MODES[mode])
        found = {"model": args.model, "mode": mode}
        print(json.dumps(found | {"stream": stream_speed(runtime, frames)}), flush=True)
        for batch in (1, 16):
            print(json.dumps(found | batch_speed(runtime, frames, batch, calls=60)), flush=True)


if __name__ == "__main__":
    main()
