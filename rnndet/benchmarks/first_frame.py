"""Open a model and detect in one frame: python -m rnndet.benchmarks.first_frame WEIGHTS RUNTIME"""

import sys
from collections.abc import Sequence

import numpy as np

from rnndet.inference.run import make_stream
from rnndet.inference.runtimes import open_runtime
from rnndet.structures import Frame


def main(argv: Sequence[str] | None = None) -> int:
    weights, kind = sys.argv[1:] if argv is None else argv
    stream = make_stream(open_runtime(weights, kind=kind, device="cpu")[0])
    stream.step(Frame(np.zeros((360, 640, 3), np.uint8), 0, 0.0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
