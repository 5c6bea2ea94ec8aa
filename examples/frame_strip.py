"""Join annotated frames side by side into one image.

The image of README.md, frames of the built-in clip:

    rnndet infer --save frames
    python examples/frame_strip.py out/demo/frames docs/images/demo.jpg --frames 29 59 69
"""

import argparse
import sys
from pathlib import Path

import cv2


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="frames/ of a result of `rnndet infer --save frames`")
    add("out", help="image file")
    add("--frames", type=int, nargs="+", required=True, metavar="N", help="indices of frames")
    add("--quality", type=int, default=85, help="of a JPEG file, 0 to 100 (85)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    paths = [args.folder / f"annotated_{index:06d}.jpg" for index in args.frames]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        print(f"frame_strip: no such file: {', '.join(missing)}", file=sys.stderr)
        return 3
    strip = cv2.hconcat([cv2.imread(str(path)) for path in paths])
    if not cv2.imwrite(args.out, strip, [cv2.IMWRITE_JPEG_QUALITY, args.quality]):
        print(f"frame_strip: {args.out}: cannot be written", file=sys.stderr)
        return 4
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
