"""A long video takes no more memory than a short one.

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
from types import SimpleNamespace
import numpy as np
import torch
from rnndet.inference import make_stream, run_source
from rnndet.structures import Detections, Frame, VideoInfo

EARLY, LATE = 200, int(sys.argv[2])


class Stub(torch.nn.Module):
    classes, score_threshold = ("a", "b"), 0.0

    def forward(self, frames, state=None):  # two objects that come and go: many tracks
        count = torch.zeros(1, 1, 1, 1) if state is None else state["0"][0] + 1
        place = float(count) % 100
        boxes = torch.tensor([[place, 10, place + 20, 30], [90 - place, 40, 110 - place, 60]])
        here = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
        if int(count) % 50 < 10:
            here = here[torch.zeros(2, dtype=torch.bool)]
        return SimpleNamespace(state={"0": (count,)}, detections=[[here]], losses=None)


class Long:
    info = VideoInfo("long", "long", 120, 64, Fraction(25), LATE + 1)

    def __iter__(self):
        image = np.random.default_rng(0).integers(0, 255, (64, 120, 3), np.uint8)
        for index in range(LATE + 1):
            yield Frame(np.roll(image, index // 400, 1), index, index / 25)


def resident(result):
    if result.frame.index in (EARLY, LATE):
        pages = int(open("/proc/self/statm").read().split()[1])
        print(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


torch.set_num_threads(1)
stream = make_stream(Stub().eval())
run_source(stream, Long(), sys.argv[1], save=(), on_frame=resident)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_is_flat(tmp_path):
    order = [sys.executable, "-c", PROGRAM, str(tmp_path), str(FRAMES)]
    shown = subprocess.run(order, check=True, capture_output=True, text=True, cwd=ROOT)
    early, late = map(float, shown.stdout.split())
    assert late - early < max(4, 16 * FRAMES / 20_000)  # MiB
