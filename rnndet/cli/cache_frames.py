"""Decode the videos of a data set once into a folder of images, for training.

rnndet cache_frames data/aerial --split train --cache cache/aerial

Safe to interrupt and to repeat: cached videos are not decoded again.
"""

import argparse
import sys
from pathlib import Path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rnndet cache_frames", description=__doc__)
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--cache", required=True, help="folder for the images")
    parser.add_argument("--format", default="coco_vid")
    parser.add_argument("--option", nargs="+", default=[], metavar="KEY=VALUE",
                        help="of the format, docs/data.md")  # fmt: skip
    parser.add_argument("--split", default="train")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    from rnndet.errors import RnndetError

    try:
        from tqdm import tqdm

        from rnndet.data.formats import read_set, reader_options
        from rnndet.data.frames import make_cache

        options = reader_options(args.option)
        videos = read_set(args.format, args.root, args.split, **options).videos
        count = sum(make_cache(video, Path(args.cache)) for video in tqdm(videos, unit="video"))
    except RnndetError as error:
        print(f"cache_frames: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("cache_frames: interrupted; run it again to continue", file=sys.stderr)
        return 130
    print(f"{count} frames decoded; {len(videos)} videos are in {args.cache}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
