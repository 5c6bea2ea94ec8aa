"""Main memory use does not grow with the length of the video.

RNNDET_FRAMES=20000 runs the long check, which takes half a minute.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FRAMES = int(os.environ.get("RNNDET_FRAMES", "1000"))

# A stub network, the real tracker, scene cuts, sinks and tally; prints RSS in MiB at two frames.
PROGRAM = """
import os, sys
from fractions import Fraction
import numpy as np
from rnndet.inference.run import RunOptions, make_stream, run_source
from rnndet.specs import InputSpec
from rnndet.structures import Detections, Frame, VideoInfo
from rnndet.video.sources.base import Source

EARLY, LATE = 200, int(sys.argv[2])


class Stub:
    classes, score_threshold, name, device, about = ("a", "b"), 0.0, "stub", "cpu", {}
    input_spec = InputSpec(64, 120, None, 1, (0.0,) * 3, (1.0,) * 3)
    track_classes = None
    rows_of = joined = to_arrays = from_arrays = fingerprint = print  # not called

    def detect(self, images, original_sizes, state, *, limits, timer):
        # two objects that come and go
        count = 0 if state is None else state + 1
        place = count % 100
        boxes = [[place, 10, place + 20, 30], [90 - place, 40, 110 - place, 60]]
        scores = np.array([0.9, 0.8], np.float32)
        here = Detections(np.array(boxes, np.float32), scores, np.array([0, 1]))
        return [Detections.empty() if count % 50 < 10 else here], count


class Long(Source):
    info = VideoInfo("long", "long", 120, 64, Fraction(25), LATE + 1)

    def __iter__(self):
        image = np.random.default_rng(0).integers(0, 255, (64, 120, 3), np.uint8)
        for index in range(LATE + 1):
            yield Frame(np.roll(image, index // 400, 1), index, index / 25)


def resident(result):
    if result.frame.index in (EARLY, LATE):
        pages = int(open("/proc/self/statm").read().split()[1])
        print(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


stream = make_stream(Stub())
run_source(stream, Long(), sys.argv[1], RunOptions(save=()), on_frame=resident)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_use_is_constant(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(FRAMES)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    early, late = map(float, shown.stdout.split())
    assert late - early < max(4, 16 * FRAMES / 20_000)  # MiB
