"""Read CocoVID: one JSON with videos, images, annotations, categories (mmtracking's layout).

Frames are image files (`images[].file_name` under `root/images_dir`), or, where a video has a
`file_name`, frames of that video file: `images[].frame_id` (0-based) is then the frame number.
An image without annotations is a labelled frame without objects. `videos[].scene`, if given,
is the scene group. The identity is `instance_id`, or without it `track_id`, as in TAO.
"""

import math
import os
from collections import defaultdict
from functools import partial
from pathlib import Path

from rnndet.data.formats.json_tables import (
    Entry,
    corners,
    is_folder,
    is_ignored,
    is_size,
    read_tables,
    table,
)
from rnndet.data.formats.text import inside, is_path, is_path_inside
from rnndet.data.formats.video_builder import MAX_FRAMES
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import ROTATED, TargetBuilder, upright
from rnndet.errors import InputError, NothingFoundError
from rnndet.structures import Target

WITHOUT_VIDEOS = (
    "as COCO of single images does; export YOLO or Pascal VOC instead, or add videos as in "
    "docs/data.md"
)
MAX_FPS = 1e6  # a larger rate is a mistake


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    annotations: str = "annotations/{split}.json",
    images_dir: str = ".",
    allow_outside: bool = False,
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read `root/annotations/<split>.json`; boxes become x1 y1 x2 y2 clipped to the image.

    Raises InputError with the file: not JSON, not in CocoVID form, no videos. An entry that lacks
    a key, repeats an id or a name, has an unknown reference or impossible numbers is a problem; so
    is a file outside `root`, unless `allow_outside`.
    """
    path = root / annotations.replace("{split}", split)
    if not os.path.lexists(path):
        raise InputError(
            f"{path}: no such annotation file; for labels that are not CocoVID give their format"
        )
    lists = ("categories", "videos", "images", "annotations")
    tree = read_tables(path, lists, form="CocoVID", hints={"videos": WITHOUT_VIDEOS})
    folders = (root, root / images_dir)
    reader = _Reader(path, *folders, problems, allow_outside=allow_outside)
    return settle(reader.read(tree), orientation, problems)


class _Reader:
    """Read one annotation file."""

    def __init__(
        self, path: Path, root: Path, images: Path, problems: Problems, *, allow_outside: bool
    ) -> None:
        self.path, self.root, self.images, self.problems = path, root, images, problems
        self.allow_outside = allow_outside

    def read(self, tree: Entry) -> VideoSet:
        before = len(self.problems)  # problems of other files
        tables = partial(table, tree, path=self.path, problems=self.problems)
        categories = tables("categories", ("name",))
        videos = tables("videos", ("name",), wrong=self._wrong_video)
        needed = ("video_id", "frame_id", "width", "height")
        images = tables("images", needed, wrong=_wrong_image)
        boxes = tables("annotations", ("image_id", "category_id", "bbox"))
        label_of = {category: label for label, category in enumerate(sorted(categories))}
        boxes_of: dict[int, list[Entry]] = defaultdict(list)  # by image
        for annotation in self._known(boxes, "annotation", "image_id", images):
            boxes_of[annotation["image_id"]].append(annotation)
        images_of = self._images_by_frame(images, videos)
        records = []
        for number, video in videos.items():
            is_file = video.get("file_name") is not None
            frames = []
            for _, image in sorted(images_of[number].items()):
                target = self._target(boxes_of[image["id"]], image, label_of)
                frames.append(self._frame(image, target, is_file=is_file))
            known = tuple(frame for frame in frames if frame is not None)
            if known:
                first = next(iter(images_of[number].values()))
                records.append(self._video(video, known, first))
            else:
                self.problems.correct("videos without images left out")
        if not records:
            reasons = self.problems.found[before:]
            why = f"; of {len(reasons)} problems the first: {reasons[0]}" if reasons else ""
            raise NothingFoundError(f"{self.path}: holds no videos with images{why}")
        return VideoSet(tuple(str(categories[c]["name"]) for c in label_of), tuple(records))

    def _images_by_frame(
        self, images: dict[int, Entry], videos: dict[int, Entry]
    ) -> dict[int, dict[int, Entry]]:
        """Group the images by video and frame number.

        A repeated frame and an image of another size than its video are problems.
        """
        images_of: dict[int, dict[int, Entry]] = defaultdict(dict)
        size_of: dict[int, tuple[int, int]] = {}  # width, height of a video
        for image in self._known(images, "image", "video_id", videos):
            number, where = image["video_id"], f"image {image['id']}"
            size = (int(image["width"]), int(image["height"]))
            expected = size_of.setdefault(number, _size(videos[number], image))
            if size != expected:
                reason = f"is {size[0]}x{size[1]}, but its video is {expected[0]}x{expected[1]}"
                self.problems.add(self.path, where, reason)
                continue
            first = images_of[number].setdefault(image["frame_id"], image)
            if first is not image:
                reason = f"frame {image['frame_id']} of its video is image {first['id']}, too"
                self.problems.add(self.path, where, reason)
        return images_of

    def _known(
        self, entries: dict[int, Entry], what: str, key: str, table: dict[int, Entry]
    ) -> list[Entry]:
        """Return the entries whose `key` is an id in `table`; all other entries are problems."""
        known = []
        for entry in entries.values():
            if isinstance(entry[key], int) and entry[key] in table:
                known.append(entry)
            else:
                reason = f"there is no {key.removesuffix('_id')} {entry[key]!s:.60}"
                self.problems.add(self.path, f"{what} {entry['id']}", reason)
        return known

    def _frame(self, image: Entry, target: Target, *, is_file: bool) -> FrameRecord | None:
        """Return the record of a frame; None, with a problem, if its path cannot be used."""
        if is_file:
            return FrameRecord(image["frame_id"], target)
        where, name = f"image {image['id']}", image.get("file_name")
        if not isinstance(name, str):
            reason = "has no file_name, and its video has none either"
            self.problems.add(self.path, where, reason)
            return None
        try:
            path = inside(self.images, name, where=where, allow_outside=self.allow_outside)
        except InputError as error:
            self.problems.add(self.path, where, str(error).removeprefix(f"{where}: "))
            return None
        return FrameRecord(image["frame_id"], target, path)

    def _video(self, video: Entry, frames: tuple[FrameRecord, ...], image: Entry) -> VideoRecord:
        given = {key: value for key, value in video.items() if value is not None}
        name, where = given.get("file_name"), f"{self.path}: video {video['id']}"
        path = None
        if name is not None:
            path = inside(self.root, name, where=where, allow_outside=self.allow_outside)
        width, height = _size(video, image)
        return VideoRecord(
            name=str(given["name"]),
            height=height,
            width=width,
            fps=float(given["fps"]) if given.get("fps") else None,
            frames=frames,
            path=path,
            group=str(given["scene"]) if "scene" in given else None,
        )

    def _wrong_video(self, video: Entry) -> str:
        """Describe an invalid value of a video; "" if all are valid."""
        given = {key: value for key, value in video.items() if value is not None}
        if not is_folder(str(video["name"])):
            return f"name {video['name']!r} cannot be that of a folder"
        if not all(is_size(given[key]) for key in ("width", "height") if key in given):
            return "width or height is not a number of pixels"
        fps, name = given.get("fps", 0), given.get("file_name", "")
        if not isinstance(fps, int | float) or not 0 <= fps <= MAX_FPS:
            return "fps is not a number of frames per second"
        fits = is_path if self.allow_outside else is_path_inside
        if not isinstance(name, str) or not fits(name):
            return f"file_name {name!s:.60} lies outside the data's folder or is no path"
        return ""

    def _target(self, entries: list[Entry], image: Entry, label_of: dict[int, int]) -> Target:
        builder = TargetBuilder(width=image["width"], height=image["height"], file=self.path,
                               problems=self.problems)  # fmt: skip
        for entry in entries:
            where = f"annotation {entry['id']}"
            track = entry.get("instance_id")
            track = entry.get("track_id") if track is None else track
            try:
                box = corners(entry["bbox"])
                track = -1 if track is None else int(track)
            except (TypeError, ValueError, OverflowError):
                reason = f"bbox {entry['bbox']!s:.60} or identity is not made of numbers"
                self.problems.add(self.path, where, reason)
                continue
            category = entry["category_id"]
            if type(category) is not int or category not in label_of:
                self.problems.add(self.path, where, f"there is no category {category!s:.60}")
                continue
            if rotation := _rotation(entry):
                self.problems.correct(ROTATED)
                box = upright(box, rotation)
            ignore = is_ignored(entry)
            builder.add(box, label_of[category], entry=where, track=track, ignore=ignore)
        return builder.build()


def _size(video: Entry, image: Entry) -> tuple[int, int]:
    """Return the width and height of a video, or of its first image where it states none."""
    sides = (video.get(key) or image[key] for key in ("width", "height"))
    return int(next(sides)), int(next(sides))


def _rotation(annotation: Entry) -> float:
    """Return the degrees by which CVAT's attribute rotates a box about its centre; mostly 0."""
    attributes = annotation.get("attributes")
    value = attributes.get("rotation") if isinstance(attributes, dict) else None
    return value % 360 if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _wrong_image(image: Entry) -> str:
    """Describe an invalid number of an image; "" if all are valid."""
    number = image["frame_id"]
    is_frame = type(number) is int and 0 <= number < MAX_FRAMES
    if is_frame and is_size(image["width"]) and is_size(image["height"]):
        return ""
    return "frame_id, width or height is not a number of frames or pixels"
