"""Feed damaged files to the readers, for test_fuzz.py, which runs this as a process of its own.

PYTHONPATH=. python tests/fuzz_readers.py FOLDER SECONDS [KIND-NUMBER]

Case n of a kind depends on the two alone, so that a failure can be repeated by its name. Anything
but success or RnndetError ends the process with a traceback; so does a case of 20 s.
"""

import faulthandler
import itertools
import json
import random
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from conftest import TRAINING_TREE, tiny_config, tiny_model
from rnndet.config import load_config
from rnndet.errors import RnndetError
from rnndet.models.checkpoint import load_model, model_content, save_checkpoint
from rnndet.models.video_detector import build_model
from rnndet.video.image import read_image, write_image
from rnndet.video.sink import Mpeg4Writer, VideoSink
from rnndet.video.sources.open import open_source

CASE_LIMIT = 20  # seconds
MEMORY_LIMIT = 6 * 2**30  # bytes
MAX_FRAMES = 200
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
VALUES = (None, True, -1, 0, 1, 10**9, 2**70, 0.5, -1e308, float("nan"), float("inf"), "", "x",
          "0", [], [1], ["0", "0"], [[8]], {}, {"a": 1}, b"", (1, 2))  # fmt: skip
TEXTS = ("true", "-1", "1e999", "nan", "''", '"x"', "[]", "[1, 'a']", "{}", "{a = 1}", "9" * 40,
         "1979-05-27", "[[[[]]]]", '"\\u0000"')  # fmt: skip


# changes


def damage(data: bytes, dice: random.Random) -> bytes:
    """A file with one to four changes of the kinds that disks, networks and people make."""
    data = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data) + 1)
        size = min(dice.choice((1, 2, 4, 16, 400, 5000)), len(data) - place)
        match dice.randrange(7):
            case 0 if size:
                data[place + dice.randrange(size)] ^= 1 << dice.randrange(8)
            case 1:
                data[place : place + size] = dice.randbytes(size)
            case 2:
                data[place : place + size] = bytes(size)
            case 3:
                del data[place : place + size]
            case 4:
                data[place:place] = data[place : place + size]
            case 5:
                order = dice.choice(("little", "big"))
                data[place : place + 4] = dice.choice(NUMBERS).to_bytes(4, order)
            case 6 if dice.random() < 0.3:
                del data[place:]
    return bytes(data)


def damage_text(data: bytes, dice: random.Random) -> bytes:
    """TOML with other values, other keys, lines that are missing or come twice, or any damage."""
    lines = data.decode().splitlines()
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(lines))
        key, sign, _ = lines[place].partition("=")
        match dice.randrange(6):
            case 0 | 1 | 2 if sign:
                lines[place] = f"{key}= {dice.choice(TEXTS)}"
            case 3:
                lines.insert(dice.randrange(len(lines)), lines[place])
            case 4:
                del lines[place]
                lines = lines or [""]
            case 5:
                return damage("\n".join(lines).encode(), dice)
    return "\n".join(lines).encode()


def damage_tree(tree: Any, dice: random.Random) -> Any:
    """Plain data in which one value, at any depth, is another, is missing, or has another key."""
    if not isinstance(tree, dict) or not tree or dice.random() < 0.1:
        return dice.choice(VALUES)
    key = dice.choice(sorted(tree, key=str))
    changed = dict(tree)
    match dice.randrange(8):
        case 0:
            del changed[key]
        case 1:
            changed[f"{key}x"] = changed.pop(key)
        case _:
            changed[key] = damage_tree(tree[key], dice)
    return changed


# readers


def read_video(path: Path) -> None:
    with open_source(path) as source:
        for frame in itertools.islice(source, MAX_FRAMES):
            assert frame.image.dtype == np.uint8 and frame.image.shape[2] == 3
            assert frame.time >= 0


def read_one_image(path: Path) -> None:
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape[2] == 3


def read_config(path: Path) -> None:
    config = load_config(path)
    options = config.model.options
    if options.get("weights") is None and options.get("backbone_weights") is None:  # no downloads
        with torch.device("meta"):
            build_model(config.model, ("a", "b"))


# whole files to begin with


def make_seeds(folder: Path) -> dict[str, list[tuple[str, Any]]]:
    """By kind, (suffix, content) of files that can be read."""
    frames = [np.full((48, 64, 3), 10 * n, np.uint8) for n in range(12)]
    for frame in frames:
        cv2.rectangle(frame, (5, 5), (30, 30), (200, 20, 90), -1)
    with VideoSink(folder / "a.mp4", size_hw=(48, 64), fps=25) as sink:
        for frame in frames:
            sink.write(frame)
    plain = Mpeg4Writer(folder / "b.mp4", (48, 64), 25)
    motion_jpeg = cv2.VideoWriter(
        str(folder / "c.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48)
    )
    for frame in frames:
        plain.write(frame)
        motion_jpeg.write(frame)
    plain.close()
    motion_jpeg.release()
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff"):
        write_image(folder / f"p{suffix}", frames[3])
    content = model_content(tiny_model(), tiny_config(), step=0)
    save_checkpoint(folder / "m.pt", content)
    configs = list(Path(__file__).resolve().parent.parent.glob("configs/*.toml"))
    for path in configs:  # for those that are the base of others
        shutil.copy(path, folder)
    return {
        "video": [(p.suffix, p.read_bytes()) for p in sorted(folder.glob("[abc].*"))],
        "image": [(p.suffix, p.read_bytes()) for p in sorted(folder.glob("p.*"))],
        "config": [(".toml", p.read_bytes()) for p in sorted(configs)],
        "checkpoint": [(".pt", (folder / "m.pt").read_bytes())],
        "content": [(".pt", content | {"config": content["config"] | TRAINING_TREE})],
    }


READERS: dict[str, Callable[[Path], Any]] = {
    "video": read_video,
    "image": read_one_image,
    "config": read_config,
    "checkpoint": load_model,
    "content": load_model,
}


def write_case(
    kind: str, number: int, seeds: dict[str, list[tuple[str, Any]]], folder: Path
) -> Path:
    """The damaged file of one case."""
    dice = random.Random(f"{kind}-{number}")
    suffix, whole = dice.choice(seeds[kind])
    path = folder / f"{kind}-{number}{suffix}"
    if kind == "content":
        torch.save(damage_tree(whole, dice), path)
    else:
        path.write_bytes((damage_text if kind == "config" else damage)(whole, dice))
    return path


def limit_memory() -> None:
    """A case that takes more than the limit gives MemoryError, and does not starve the machine."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))


def main(folder: Path, seconds: float, only: str | None = None) -> None:
    limit_memory()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    faulthandler.enable()
    seeds = make_seeds(folder)
    counts = {kind: Counter() for kind in READERS}
    end = time.monotonic() + seconds
    for place in itertools.count():
        number, kind = divmod(place, len(READERS))
        kind = list(READERS)[kind]
        if only is not None:
            kind, _, text = only.rpartition("-")
            number = int(text)
        path = write_case(kind, number, seeds, folder)
        (folder / "case").write_text(path.name)
        faulthandler.dump_traceback_later(CASE_LIMIT, exit=True)
        try:
            READERS[kind](path)
            counts[kind]["read"] += 1
        except RnndetError as error:
            assert "\n" not in str(error), f"more than one line: {error}"
            counts[kind]["refused"] += 1
        faulthandler.cancel_dump_traceback_later()
        path.unlink()
        if only is not None or (time.monotonic() > end and number > 0):
            break
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
