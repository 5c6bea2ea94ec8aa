"""Milliseconds of a frame of DEIM nano in libreyolo, with its ByteTrack, to compare with rnndet.

Run it in an environment of its own (pip install libreyolo).

    python examples/comparison/libreyolo_track.py clip.mp4

prints one line of JSON. Without --weights the model is untrained, and nothing is downloaded; the
score from which boxes count is then one that about --objects boxes of a frame reach.
"""

import os
import sys
from collections.abc import Iterator

from frame_times import existing, limit_threads, measure, parser, report


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--weights", help="a checkpoint of DEIM nano (.pth)")
    arguments.add_argument("--objects", type=int, default=4, help="of a frame, if untrained (4)")
    args = arguments.parse_args()
    limit_threads(args.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import cv2
    import torch

    try:
        from libreyolo import LibreDEIM
    except ImportError:
        sys.exit("libreyolo is not installed; pip install libreyolo")
    from importlib.metadata import version

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    torch.manual_seed(0)
    video = existing(args.video)
    weights = existing(args.weights) if args.weights else None
    out, sys.stdout = sys.stdout, sys.stderr  # keep it for the line of JSON
    try:
        # from the configuration alone: no backbone is downloaded
        model = LibreDEIM(weights, "n", device="cpu", pretrained=weights is not None)
        model.model.eval()
        side = model.input_size
        threshold = 0.25
        if weights is None:
            _, frame = cv2.VideoCapture(video).read()
            found = model.predict(frame, conf=0.0, color_format="bgr").boxes.conf
            threshold = float(found.sort(descending=True).values[args.objects - 1])

        def objects() -> Iterator[int]:
            results = model.track(
                video, track_conf=threshold, conf=threshold / 2,
                track_low_thresh=threshold / 2, new_track_thresh=threshold,
            )  # fmt: skip
            for result in results:
                yield len(result.boxes)

        measured = measure(objects(), frames=args.frames)
    finally:
        sys.stdout = out
    tool = f"libreyolo {version('libreyolo')}, DEIM nano, torch {torch.__version__}"
    report(tool, (side, side), measured)


if __name__ == "__main__":
    main()
