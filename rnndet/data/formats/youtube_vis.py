"""Read YouTube-VIS and OVIS: one JSON per split; an annotation is a track, with a box per frame.

The keys read are `videos[]` with id, width, height, file_names; `categories[]` with id, name; and
`annotations[]` with id, video_id, category_id, iscrowd and `bboxes`: one [x, y, w, h] per file of
the video, null where the object is not visible. Masks are not read.
"""

import os
from functools import partial
from pathlib import Path, PurePosixPath

from rnndet.data.formats.json_tables import Entry, corners, is_ignored, is_size, read_tables, table
from rnndet.data.formats.text import inside
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.targets import TargetBuilder
from rnndet.errors import InputError, NothingFoundError
from rnndet.messages import counted
from rnndet.structures import Target
from rnndet.video.sources.base import safe_name


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    annotations: str = "annotations/{split}.json",
    images_dir: str = "{split}/JPEGImages",
    orientation: Orientation = "auto",
) -> VideoSet:
    """Read `root/annotations/<split>.json`; every listed frame is labelled.

    `FrameRecord.index` is the position in `file_names`, a video's name is the folder of its first
    file, and a box's identity is the id of its annotation. Crowds are ignored. In a file whose
    `annotations` are missing or null (the published validation and test files) no frame is
    labelled.

    Raises InputError with the file: not JSON, not in this form, a path outside the folder, no
    videos. Problems are: an entry that lacks a key, repeats an id, has an unknown reference or
    impossible numbers; a track of masks without boxes; a missing image.
    """
    path = root / annotations.replace("{split}", split)
    if not os.path.lexists(path):
        raise InputError(
            f"{path}: no such annotation file; give its place with the option annotations"
        )
    tree = read_tables(path, ("categories", "videos"), form="YouTube-VIS")
    if not isinstance(tree.get("annotations"), list | None):
        raise InputError(f"{path}: not in YouTube-VIS form: 'annotations' is not a list")
    images = root / images_dir.replace("{split}", split)
    return settle(_Reader(path, images, problems).read(tree), orientation, problems)


class _Reader:
    """Read one annotation file."""

    def __init__(self, path: Path, images: Path, problems: Problems) -> None:
        self.path, self.images, self.problems = path, images, problems

    def read(self, tree: Entry) -> VideoSet:
        tables = partial(table, tree, path=self.path, problems=self.problems)
        categories = tables("categories", ("name",))
        videos = tables("videos", ("width", "height", "file_names"), wrong=_wrong_video)
        label_of = {category: label for label, category in enumerate(sorted(categories))}
        tracks_of: dict[int, list[Entry]] | None = None
        if tree.get("annotations") is not None:
            tracks_of = {number: [] for number in videos}
            needed = ("video_id", "category_id")
            for track in tables("annotations", needed).values():
                if self._is_track(track, videos, label_of):
                    tracks_of[track["video_id"]].append(track)
        records: dict[str, VideoRecord] = {}
        for number, video in videos.items():
            targets = (
                None if tracks_of is None else self._targets(video, tracks_of[number], label_of)
            )
            record = self._video(video, targets)
            if record.name in records:
                where = f"video {number}"
                self.problems.add(self.path, where, f"another video is named {record.name!r}, too")
            elif record.frames:
                records[record.name] = record
        if not records:
            self.problems.stop_if_any()
            raise NothingFoundError(f"{self.path}: holds no videos")
        names = tuple(str(categories[c]["name"]) for c in label_of)
        return VideoSet(names, tuple(records.values()))

    def _is_track(self, track: Entry, videos: dict[int, Entry], label_of: dict[int, int]) -> bool:
        """Return True if an annotation can be used; otherwise report the problem."""
        boxes = track.get("bboxes")
        video, category = track["video_id"], track["category_id"]
        if type(video) is not int or video not in videos:
            reason = f"there is no video {video!s:.60}"
        elif type(category) is not int or category not in label_of:
            reason = f"there is no category {category!s:.60}"
        elif boxes is None and track.get("segmentations") is not None:
            reason = "has masks but no bboxes; masks are not read, add boxes to the file"
        elif not isinstance(boxes, list):
            reason = "lacks the list 'bboxes'"
        elif len(boxes) != (count := len(videos[video]["file_names"])):
            reason = f"{counted(len(boxes), 'bbox', 'bboxes')} for {counted(count, 'frame')}"
        else:
            return True
        self.problems.add(self.path, f"annotation {track['id']}", reason)
        return False

    def _targets(self, video: Entry, tracks: list[Entry], label_of: dict[int, int]) -> list[Target]:
        """Return the target of every frame of a video."""
        builders = [
            TargetBuilder(width=video["width"], height=video["height"], file=self.path,
                         problems=self.problems)
            for _ in video["file_names"]
        ]  # fmt: skip
        for track in tracks:
            for place, bbox in enumerate(track["bboxes"]):
                if bbox is None:
                    continue
                where = f"annotation {track['id']}, bboxes[{place}]"
                try:
                    box = corners(bbox)
                except (ValueError, OverflowError):
                    reason = f"{bbox!s:.60} is not made of four numbers"
                    self.problems.add(self.path, where, reason)
                    continue
                label, ignore = label_of[track["category_id"]], is_ignored(track)
                builders[place].add(box, label, entry=where, track=track["id"], ignore=ignore)
        return [builder.build() for builder in builders]

    def _video(self, video: Entry, targets: list[Target] | None) -> VideoRecord:
        frames = []
        for place, name in enumerate(video["file_names"]):
            where = f"video {video['id']}, file_names[{place}]"
            image = inside(self.images, name, where=f"{self.path}: {where}")
            if image.is_file():
                frames.append(FrameRecord(place, targets[place] if targets else None, image))
            else:
                self.problems.add(self.path, where, f"there is no image {image}")
        folder = PurePosixPath(video["file_names"][0]).parent.as_posix()
        return VideoRecord(
            name=f"video_{video['id']}" if folder == "." else safe_name(folder),
            height=int(video["height"]),
            width=int(video["width"]),
            fps=None,
            frames=tuple(frames),
        )


def _wrong_video(video: Entry) -> str:
    """Describe an invalid value of a video; "" if all are valid."""
    sizes, names = (video["width"], video["height"]), video["file_names"]
    if not all(is_size(value) for value in sizes):
        return "width or height is not a number of pixels"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "file_names is not a list of names"
    return "" if names else "file_names is empty"
