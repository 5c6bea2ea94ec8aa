"""Milliseconds of a frame of torchvision's SSDLite in the documentation's loop, with a tracker.

    python examples/comparison/torchvision_track.py clip.mp4

prints one line of JSON. The loop is `model([frame / 255])` of every frame that OpenCV decodes; the
model scales it to 320 x 320. torchvision has no tracker: ByteTracker of rnndet follows. Without
--weights the model is untrained; its scores are shifted so that about --objects boxes are found.
"""

from collections.abc import Iterator
from typing import Any

from frame_times import existing, limit_threads, measure, parser, report

THRESHOLD = 0.3  # rnndet's default


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--weights", help="state_dict of ssdlite320_mobilenet_v3_large (.pth)")
    arguments.add_argument("--objects", type=int, default=4, help="of a frame, if untrained (4)")
    args = arguments.parse_args()
    limit_threads(args.threads)

    import cv2
    import numpy as np
    import torch
    import torchvision

    from rnndet.structures import Detections
    from rnndet.tracking.byte import ByteTracker

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    torch.manual_seed(0)
    video = existing(args.video)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=91, score_thresh=THRESHOLD
    ).eval()
    if args.weights:
        model.load_state_dict(torch.load(existing(args.weights), weights_only=True))
    else:
        _make_plausible(
            model, [frame for frame, _ in zip(_frames(video), range(8), strict=False)], args.objects
        )
    tracker = ByteTracker(min_score=THRESHOLD)

    def objects() -> Iterator[int]:
        with torch.no_grad():
            for frame in _frames(video):
                (found,) = model([torch.from_numpy(frame).permute(2, 0, 1) / 255])
                detections = Detections(
                    found["boxes"].numpy(), found["scores"].numpy(),
                    found["labels"].numpy().astype(np.int64) - 1,
                )  # fmt: skip
                yield len(tracker.update(detections))

    measured = measure(objects(), frames=args.frames)
    report(
        f"torchvision {torchvision.__version__}, ssdlite320, torch {torch.__version__}",
        (320, 320),
        measured,
    )


def _frames(video: str) -> Iterator[Any]:
    """Yield the frames as (H, W, 3) RGB."""
    import cv2

    capture = cv2.VideoCapture(video)
    while True:
        ok, frame = capture.read()
        if not ok:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _make_plausible(model: Any, frames: list[Any], objects: int) -> None:
    """Give an untrained model activations like those of a trained one, and scores that find boxes.

    Batch norms take the statistics of the frames; the score of the background is shifted until
    `objects` positions of a frame, on average, have a score above the threshold.
    """
    import torch

    images = [torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in frames]
    with torch.no_grad():
        batch, _ = model.transform(images)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for layer in norms:
            layer.momentum = None  # the mean over all calls
            layer.train()
        features = list(model.backbone(batch.tensors).values())
        model.head(features)
        model.eval()
        features = list(model.backbone(batch.tensors).values())
        logits = model.head(features)["cls_logits"]  # (B, A, K), class 0 is the background
        # the background that gives the class with the highest score just the threshold
        others = logits[..., 1:].double()
        rest = (others.exp().sum(-1), others.amax(-1).exp())
        background = (rest[1] / THRESHOLD - rest[0]).clamp(min=1e-9).log()
        shifts = (background - logits[..., 0]).flatten().sort(descending=True).values
        shift = shifts[objects * len(frames) - 1].float()
        for level in model.head.classification_head.module_list:
            last = level[-1] if hasattr(level, "__getitem__") else level
            last.bias[:: logits.shape[-1]] += shift


if __name__ == "__main__":
    main()
