"""Measure milliseconds per frame of an ultralytics tracker, to compare with `rnndet benchmark`.

Run it in a separate environment in which ultralytics is installed (AGPL-3.0; rnndet neither
contains nor needs it):

    python examples/ultralytics_speed.py clip.mp4 --model yolo26n.yaml --size 320 --threads 1

A model from a .yaml is untrained and detects nothing, which is its fastest case. Decoding, model
and tracker are timed ("decode" to "track" of `rnndet benchmark`); nothing is drawn or written.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("video")
    add("--model", default="yolo26n.yaml", help="an architecture (.yaml) or weights (.pt)")
    add("--format", choices=["torch", "onnx", "openvino"], default="torch")
    add("--size", type=int, default=320, help="longer side of the input, a multiple of 32")
    add("--frames", type=int, default=100)
    add("--warm-up", type=int, default=5)
    add("--threads", type=int, default=1)
    add("--folder", default=".", help="folder for exported models")
    return parser.parse_args()


def main() -> None:
    args = parse()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["YOLO_VERBOSE"] = "False"
    import cv2
    import torch

    try:
        from ultralytics import YOLO
        from ultralytics import __version__ as version
    except ImportError:
        sys.exit("ultralytics is not installed; pip install ultralytics")

    video = str(Path(args.video).resolve())
    os.chdir(args.folder)
    torch.set_num_threads(args.threads)
    model = YOLO(args.model)
    capture = cv2.VideoCapture(video)
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    scale = args.size / max(width, height)
    size = [-(-round(side * scale) // 32) * 32 for side in (height, width)]
    if args.format != "torch":
        model.model.names = {k: str(k) for k in range(80)}
        model = YOLO(model.export(format=args.format, imgsz=size, verbose=False), task="detect")
    walls, cpus = [], []
    while len(walls) < args.frames + args.warm_up:
        wall, cpu = time.perf_counter(), time.process_time()
        ok, frame = capture.read()
        if not ok:
            break
        model.track(frame, imgsz=size, persist=True, verbose=False, device="cpu")
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(
        json.dumps(
            {
                "ultralytics": version,
                "model": args.model,
                "format": args.format,
                "input": size,
                "threads": args.threads,
                "frames": len(walls) - args.warm_up,
                "ms": 1000 * median(walls[args.warm_up :]),
                "cpu_ms": 1000 * median(cpus[args.warm_up :]),
            }
        )
    )


if __name__ == "__main__":
    main()
