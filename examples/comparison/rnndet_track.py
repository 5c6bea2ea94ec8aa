"""Milliseconds of a frame of rnndet: decoding, model, temporal module and tracker, no drawing.

    python examples/comparison/rnndet_track.py clip.mp4 --weights everyday --runtime openvino

prints one line of JSON. Compare it with the lines of the scripts beside it: compare.py runs them.
"""

from collections.abc import Iterator

from frame_times import existing, limit_threads, measure, parser, report


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--weights", default="everyday", help="a name, a checkpoint or a graph")
    arguments.add_argument("--runtime", choices=["torch", "onnx", "openvino"], default="openvino")
    arguments.add_argument("--half", action="store_true", help="as in rnndet infer")
    args = arguments.parse_args()
    limit_threads(args.threads)

    import cv2

    import rnndet
    from rnndet.inference.runtimes import open_runtime

    cv2.setNumThreads(args.threads)
    runtime, why = open_runtime(
        args.weights, kind=args.runtime, device="cpu", threads=args.threads, half=args.half
    )
    video = existing(args.video)
    with rnndet.open_source(video) as source:
        size = source.info.height, source.info.width

    def objects() -> Iterator[int]:
        for result in rnndet.track(runtime, video):
            yield len(result.detections)

    spec = runtime.input_spec
    measured = measure(objects(), frames=args.frames)
    version = f"rnndet {rnndet.__version__}, {why if runtime.name != 'torch' else _torch()}"
    report(version, spec.padded_hw(*spec.scaled_hw(*size)), measured)


def _torch() -> str:
    import torch

    return f"torch {torch.__version__}"


if __name__ == "__main__":
    main()
