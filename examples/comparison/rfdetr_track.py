"""Milliseconds of a frame of RF-DETR Nano with the ByteTrack of trackers, to compare with rnndet.

Run it in an environment of its own (pip install rfdetr trackers).

    python examples/comparison/rfdetr_track.py clip.mp4

prints one line of JSON. Without --weights the model is untrained, and nothing is downloaded; the
score from which boxes count is then one that about --objects boxes of a frame reach.
"""

import logging
import os
import sys
import warnings
from collections.abc import Iterator

from frame_times import existing, limit_threads, measure, parser, report

SIZE = 384  # of RF-DETR Nano, square


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--weights", help="a checkpoint of RF-DETR Nano (.pth)")
    arguments.add_argument("--objects", type=int, default=4, help="of a frame, if untrained (4)")
    args = arguments.parse_args()
    limit_threads(args.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import cv2
    import numpy as np
    import torch

    try:
        from rfdetr import RFDETRNano
        from trackers import ByteTrackTracker
    except ImportError:
        sys.exit("rfdetr is not installed; pip install rfdetr trackers")
    from importlib.metadata import version

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    torch.manual_seed(0)
    video = existing(args.video)
    weights = existing(args.weights) if args.weights else None
    out, sys.stdout = sys.stdout, sys.stderr  # keep it for the line of JSON
    try:
        model = RFDETRNano(pretrain_weights=weights, device="cpu")
        model.inference()  # traces it
    finally:
        sys.stdout = out
    threshold = 0.3
    if weights is None:
        scores = np.sort(model.predict(next(_frames(video)), threshold=0.0).confidence)
        threshold = float(scores[-args.objects])
    tracker = ByteTrackTracker(
        track_activation_threshold=threshold, high_conf_det_threshold=threshold
    )

    def objects() -> Iterator[int]:
        for frame in _frames(video):
            found = model.predict(frame, threshold=threshold)
            yield len(tracker.update(found))

    measured = measure(objects(), frames=args.frames)
    report(f"rfdetr {version('rfdetr')}, nano, torch {torch.__version__}", (SIZE, SIZE), measured)


def _frames(video: str) -> Iterator:
    """Yield the frames as (H, W, 3) RGB."""
    import cv2

    capture = cv2.VideoCapture(video)
    while True:
        ok, frame = capture.read()
        if not ok:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


if __name__ == "__main__":
    main()
