"""Render labelled photographs as clips of everyday motion: a CocoVID set of video files."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rnndet.data.orientation import labelled_image, turn_hint
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.writers import coco_vid
from rnndet.errors import InputError, NothingFoundError, OutputError, RnndetError
from rnndet.messages import counted
from rnndet.structures import DEFAULT_FPS, Target
from rnndet.video.image import read_image
from rnndet.video.sink import VideoSink
from rnndet.video.synthetic.cutouts import Cutout, cut_out, whole_objects
from rnndet.video.synthetic.photograph import MovingPhotograph

logger = logging.getLogger(__name__)

MIN_SHARE = 0.5  # smallest side of a photograph, as a share of that of a frame
MIN_FRAME = 64  # pixels, a side of a frame
CUTOUTS = (2, 6)  # objects of other photographs in a clip
TRIES = 6  # objects that are tried until one has an outline
VAL = "val"  # the split of `val_clips`


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """The size and number of clips to render."""

    clips: int
    val_clips: int = 0  # of the split `VAL`, from photographs of their own
    length: int = 60  # frames
    size_hw: tuple[int, int] = (384, 640)
    fps: Fraction = DEFAULT_FPS

    def __post_init__(self) -> None:
        height, width = self.size_hw
        if self.clips < 1 or self.val_clips < 0 or self.length < 1:
            raise RnndetError("expected one clip or more, of one frame or more")
        if min(self.size_hw) < MIN_FRAME or height % 2 or width % 2:  # an encoder pads odd sides
            raise RnndetError(f"`size_hw`: {width}x{height}: expected even sides from {MIN_FRAME}")


@dataclass(frozen=True)
class _Part:
    """Photographs of one split, and their objects that can be cut out."""

    photographs: list[VideoRecord]
    objects: list[tuple[VideoRecord, int]]  # a photograph and the row of its target
    known: dict[tuple[str, int], Cutout] = field(default_factory=dict)


def render_photographs(
    photographs: VideoSet,
    root: Path,
    split: str,
    *,
    options: ClipOptions,
    seed: int,
    skip_bad: bool = False,
) -> list[Path]:
    """Render clips of moving photographs; returns the annotation files.

    Writes `root/videos/SPLIT/*.mp4` and then `root/annotations/SPLIT.json`; the scene group of a
    clip is that of its photograph, or the photograph's name. The clips of `options.val_clips` show
    no photograph, and no scene group of photographs, of the other clips.

    Everything is checked before the first clip is rendered. Raises RnndetError (videos instead of
    photographs; too few photographs), InputError (photographs that are missing, too small, or of
    another size than their labels say; with `skip_bad` they are left out; no objects) or
    OutputError (a split that exists already).
    """
    counts = {split: options.clips} | ({VAL: options.val_clips} if options.val_clips else {})
    if options.val_clips and split == VAL:
        raise RnndetError(f"`val_clips` are the split {VAL!r}; choose another `split`")
    for name in counts:
        if (path := root / "annotations" / f"{name}.json").exists():
            raise OutputError(f"{path}: exists already; choose another folder")
    problems = Problems()
    usable = [video for video in photographs.videos if _is_usable(video, options, problems)]
    if not skip_bad:
        problems.stop_if_any()
    elif problems.found:
        logger.warning("%d photographs left out, the first: %s", len(problems), problems.found[0])
    parts = _divided(usable, list(counts.values()), np.random.default_rng([seed, 2026]))
    sets, number = {}, 0
    with tqdm(total=sum(counts.values()), unit="clip", disable=None) as bar:
        for (name, count), part in zip(counts.items(), parts, strict=True):
            videos = []
            for background in _backgrounds(part, count, np.random.default_rng([seed, number])):
                path = root / "videos" / name / f"{name}_{len(videos):04d}.mp4"
                videos.append(_render(background, part, path, options, seed + number))
                number += 1
                bar.update()
            sets[name] = VideoSet(photographs.classes, tuple(videos))
    for name, videos in sets.items():
        coco_vid.write(videos, root, name, images=False)
    return [root / "annotations" / f"{name}.json" for name in sets]


def _is_usable(video: VideoRecord, options: ClipOptions, problems: Problems) -> bool:
    """Whether a video is a labelled photograph of sufficient size; if not, that is a problem.

    Raises RnndetError for a video of several frames.
    """
    image = video.frames[0].image
    if len(video.frames) != 1 or image is None:
        count = "a video file" if image is None else counted(len(video.frames), "frame")
        raise RnndetError(f"{video.name}: is {count}; expected photographs, of one frame each")
    before = len(problems)
    try:
        height, width = read_image(image, as_stored=video.as_stored).shape[:2]
    except InputError as error:
        problems.add_error(image, error)
        return False
    if video.frames[0].target is None:
        problems.add(image, "", "has no labels")
    elif (height, width) != (video.height, video.width):
        stated = f"{video.width}x{video.height}"
        hint = turn_hint(image, (video.height, video.width), as_stored=video.as_stored)
        reason = f"is {width}x{height}, but its labels are for {stated}"
        problems.add(image, "", f"{reason}; {hint}" if hint else reason)
    elif height < MIN_SHARE * options.size_hw[0] or width < MIN_SHARE * options.size_hw[1]:
        frame = "{1}x{0}".format(*options.size_hw)
        problems.add(
            image, "", f"{width}x{height} is too small for frames of {frame}; see `size_hw`"
        )
    return len(problems) == before


def _divided(
    photographs: Sequence[VideoRecord], counts: Sequence[int], rng: np.random.Generator
) -> list[_Part]:
    """Divide the photographs by scene groups, in proportion to the counts of clips.

    Raises NothingFoundError if a part has no object to cut out.
    """
    if not any(len(_target(video)) for video in photographs):
        raise NothingFoundError(f"none of {len(photographs)} photographs has a labelled object")
    groups = sorted({_group(video) for video in photographs})
    order = [groups[k] for k in rng.permutation(len(groups))]
    parts, taken = [], 0
    if len(groups) < len(counts):
        raise NothingFoundError(f"{len(groups)} photograph or scene is too few for two splits")
    for k, done in enumerate(np.cumsum(counts).tolist()):
        last = len(groups) - (len(counts) - 1 - k)  # leaves a group for each later part
        end = min(max(taken + 1, round(len(groups) * done / sum(counts))), last)
        chosen = set(order[taken:end])
        taken = end
        videos = [video for video in photographs if _group(video) in chosen]
        objects = [(video, row) for video in videos for row in _objects(video)]
        if not objects:
            raise NothingFoundError(
                f"no object in {len(videos)} photographs can be cut out: it must be large, whole, "
                "and alone in its box"
            )
        parts.append(_Part(videos, objects))
    return parts


def _objects(video: VideoRecord) -> Iterator[int]:
    target = _target(video)
    boxes, ignore = target.boxes.numpy(), target.ignore.numpy()
    return whole_objects(boxes, ignore, (video.height, video.width))


def _backgrounds(part: _Part, count: int, rng: np.random.Generator) -> list[VideoRecord]:
    """Photographs in random order, each once before any is repeated."""
    order: list[int] = []
    while len(order) < count:
        order += rng.permutation(len(part.photographs)).tolist()
    return [part.photographs[k] for k in order[:count]]


def _render(
    background: VideoRecord, part: _Part, path: Path, options: ClipOptions, seed: int
) -> VideoRecord:
    """Write one clip as a video file, and return its record."""
    clip = MovingPhotograph(
        _pixels(background), _target(background),
        _cutouts(background, part, np.random.default_rng([seed, 2027])),
        seed=seed, length=options.length, size_hw=options.size_hw, fps=options.fps,
    )  # fmt: skip
    with VideoSink(path, size_hw=options.size_hw, fps=options.fps) as sink:
        for frame in clip:
            sink.write(frame.image, time=frame.time)
    records = tuple(FrameRecord(index, clip.target(index)) for index in range(len(clip)))
    height, width = options.size_hw
    fps = float(options.fps)
    return VideoRecord(path.stem, height, width, fps, records, path, _group(background))


def _cutouts(background: VideoRecord, part: _Part, rng: np.random.Generator) -> list[Cutout]:
    """Draw objects of other photographs; those with an outline if a few tries find one."""
    others = [(v, row) for v, row in part.objects if _group(v) != _group(background)]
    chosen: list[Cutout] = []
    if not others:
        return chosen
    for _ in range(int(rng.integers(CUTOUTS[0], CUTOUTS[1] + 1))):
        for k in rng.integers(len(others), size=TRIES).tolist():
            video, row = others[k]
            if (video.name, row) not in part.known:
                target = _target(video)
                box, label = target.boxes[row].numpy(), int(target.labels[row])
                part.known[video.name, row] = cut_out(_pixels(video), box, label)
            found = part.known[video.name, row]
            if found.has_outline:
                break
        chosen.append(found)
    return chosen


def _group(video: VideoRecord) -> str:
    return video.name if video.group is None else video.group


def _target(video: VideoRecord) -> Target:
    target = video.frames[0].target
    assert target is not None, video.name
    return target


def _pixels(video: VideoRecord) -> np.ndarray:
    image = video.frames[0].image
    assert image is not None, video.name
    return labelled_image(video, video.frames[0], image)
