"""Milliseconds of a frame of an ultralytics tracker, to compare with rnndet: decoding included.

Run it in an environment of its own (pip install ultralytics openvino onnxruntime nncf). ultralytics
is AGPL-3.0; rnndet neither contains nor needs it.

    python examples/comparison/ultralytics_track.py clip.mp4 --size 448 --format openvino --int8

prints one line of JSON. Nothing is drawn or written, except the exported model in --folder. A model
from a .yaml is untrained; its scores are shifted so that about --objects boxes reach the tracker.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frame_times import existing, limit_threads, measure, parser, report

CALIBRATION = 32  # frames of the video for int8
SAMPLE = 8  # frames of the video that give an untrained model its statistics


def parse() -> argparse.Namespace:
    arguments = parser(__doc__)
    add = arguments.add_argument
    add("--model", default="yolo26n.yaml", help="an architecture (.yaml) or weights (.pt)")
    add("--format", choices=["torch", "onnx", "openvino"], default="torch")
    add("--int8", action="store_true", help="of openvino, calibrated on frames of the video")
    add("--size", type=int, default=448, help="longer side of the input, a multiple of 32")
    add("--tracker", default="bytetrack.yaml")
    add("--objects", type=int, default=2, help="boxes of a frame of an untrained model (2)")
    add("--folder", default="ultralytics_models", help="of exported models, which are kept")
    args = arguments.parse_args()
    if args.int8 and args.format != "openvino":
        arguments.error("--int8 needs --format openvino")
    return args


def main() -> None:
    args = parse()
    limit_threads(args.threads)
    folder = Path(args.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"YOLO_VERBOSE": "False", "YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False"}
    os.environ.setdefault("YOLO_CONFIG_DIR", str(folder))
    import cv2
    import torch

    try:
        from ultralytics import YOLO
        from ultralytics import __version__ as version
    except ImportError:
        sys.exit("ultralytics is not installed; pip install ultralytics")

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    video = existing(args.video)
    if args.model.endswith(".pt"):
        args.model = existing(args.model)
    os.chdir(folder)
    size_hw = _padded(video, args.size)
    exported = _path(args, size_hw)
    if args.format == "torch" or not exported.exists():
        torch.manual_seed(0)
        model = YOLO(args.model, task="detect")
        if args.model.endswith(".yaml"):
            _make_plausible(model, _frames(video, SAMPLE * 10)[::10], args)
        if args.format != "torch":
            _export(model, exported, args, video, size_hw)
    if args.format != "torch":
        model = YOLO(exported, task="detect")
    # torch pads the frame itself, to the multiple of 32; an exported model has its size
    results = model.track(
        video, stream=True, imgsz=args.size if args.format == "torch" else size_hw,
        tracker=args.tracker, device="cpu", verbose=False,
    )  # fmt: skip
    inputs: list[tuple[int, int]] = []
    measured = measure(_objects(results, model, inputs), frames=args.frames)
    name = f"{args.model.rpartition('.')[0]}, {args.format}{' int8' if args.int8 else ''}"
    report(f"ultralytics {version}, {name}, {args.tracker}", inputs[0], measured)


def _objects(results: Any, model: Any, inputs: list[tuple[int, int]]) -> Iterator[int]:
    """Yield the number of boxes of each frame; notes the size of the second frame's input."""
    yield len(next(results).boxes)
    preprocess = model.predictor.preprocess

    def noted(images: Any) -> Any:
        tensor = preprocess(images)
        inputs.append((tensor.shape[2], tensor.shape[3]))
        model.predictor.preprocess = preprocess
        return tensor

    model.predictor.preprocess = noted
    for result in results:
        yield len(result.boxes)


def _frames(video: str, count: int) -> list[Any]:
    import cv2

    capture = cv2.VideoCapture(video)
    return [frame for ok, frame in (capture.read() for _ in range(count)) if ok]


def _padded(video: str, longer: int) -> list[int]:
    """Height and width of the letterboxed frame, multiples of 32."""
    height, width = _frames(video, 1)[0].shape[:2]
    scale = longer / max(height, width)
    return [-(-round(side * scale) // 32) * 32 for side in (height, width)]


def _make_plausible(model: Any, frames: list[Any], args: argparse.Namespace) -> None:
    """Give an untrained model activations like those of a trained one, and scores that find boxes.

    Batch norms take the statistics of the frames, and the class scores are shifted until
    `args.objects` boxes of a frame, on average, have a score of 0.5 or more. Otherwise nothing
    would reach NMS and tracker.
    """
    import cv2
    import torch

    squares = [cv2.resize(frame, (args.size, args.size))[..., ::-1].copy() for frame in frames]
    images = torch.stack([torch.from_numpy(image) for image in squares]).permute(0, 3, 1, 2)
    layers = [level[-1] for level in model.model.model[-1].cv3]
    with torch.no_grad():
        for layer in model.model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # the mean over all calls
        model.model.train()(images.float() / 255)
        model.model.eval()
        for layer in layers:
            layer.bias.zero_()
        found = [
            model.predict(frame, imgsz=args.size, conf=0.01, device="cpu", verbose=False)[0]
            for frame in frames
        ]
        scores = torch.cat([result.boxes.conf for result in found]).double()
        last = scores.sort(descending=True).values[args.objects * len(frames) - 1]
        for layer in layers:
            layer.bias -= torch.logit(last, eps=1e-7).float()
    model.predictor = None  # it has a copy of the model


def _path(args: argparse.Namespace, size_hw: list[int]) -> Path:
    kind = {"onnx": ".onnx", "openvino": "_int8_openvino_model" if args.int8 else "_openvino_model"}
    name = f"{Path(args.model).stem}_{size_hw[1]}x{size_hw[0]}_{args.objects}"
    return Path(name + kind.get(args.format, ".pt")).resolve()


def _export(model: Any, to: Path, args: argparse.Namespace, video: str, size_hw: list[int]) -> None:
    options: dict[str, Any] = {"quantize": 8, "data": _calibration(video)} if args.int8 else {}
    model.model.names = {k: f"class {k}" for k in range(len(model.model.names))}
    # keep stdout for the line of JSON
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        made = model.export(format=args.format, imgsz=size_hw, **options)
    finally:
        sys.stdout = out
    Path(made).rename(to)


def _calibration(video: str) -> str:
    """Write frames of the video as a set of ultralytics; return its file."""
    import cv2

    root = Path("calibration").resolve()
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    frames = _frames(video, 10 * CALIBRATION)[::10]
    for index, frame in enumerate(frames):
        cv2.imwrite(str(root / "images" / f"{index:03d}.jpg"), frame)
        (root / "labels" / f"{index:03d}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    names = "".join(f"  {k}: class {k}\n" for k in range(80))
    file = root / "data.yaml"
    file.write_text(f"path: {root}\ntrain: images\nval: images\nnames:\n{names}")
    return str(file)


if __name__ == "__main__":
    main()
