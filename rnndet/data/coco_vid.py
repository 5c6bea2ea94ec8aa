"""CocoVID: one JSON with videos, images, annotations, categories (mmtracking's layout).

Frames are picture files (`images[].file_name` under `root/images_dir`), or, where a video has a
`file_name`, frames of that video file: `images[].frame_id` (0-based) is then the frame number.
An image without annotations is a labelled frame that holds nothing. `videos[].scene`, if given,
is the scene group.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from rnndet.data.problems import Problems
from rnndet.data.records import FrameRecord, VideoRecord, VideoSet
from rnndet.data.text import inside, read_json
from rnndet.data.truths import TruthBuilder
from rnndet.errors import InputError
from rnndet.structures import Truth

Entry = dict[str, Any]


def read(
    root: Path,
    split: str,
    problems: Problems,
    *,
    annotations: str = "annotations/{split}.json",
    images_dir: str = ".",
) -> VideoSet:
    """Read `root/annotations/<split>.json`; boxes become x1 y1 x2 y2 clipped to the picture.

    Raises InputError with the file: not JSON, not in CocoVID form, no videos. An entry that lacks
    a key, repeats an id, names what is not there or has impossible numbers is a problem.
    """
    path = root / annotations.format(split=split)
    tree = read_json(path)
    if not isinstance(tree, dict):
        raise InputError(f"{path}: not in CocoVID form: the top level is not an object")
    for key in ("categories", "videos", "images", "annotations"):
        if not isinstance(tree.get(key), list):
            raise InputError(f"{path}: not in CocoVID form: lacks the list {key!r}")
    return _Reader(path, root, root / images_dir, problems).read(tree)


class _Reader:
    """One file being read."""

    def __init__(self, path: Path, root: Path, images: Path, problems: Problems) -> None:
        self.path, self.root, self.images, self.problems = path, root, images, problems

    def read(self, tree: Entry) -> VideoSet:
        categories = self._table(tree, "categories", ("name",))
        videos = self._table(tree, "videos", ("name",))
        images = self._table(tree, "images", ("video_id", "frame_id", "width", "height"))
        boxes = self._table(tree, "annotations", ("image_id", "category_id", "bbox"))
        label_of = {category: label for label, category in enumerate(sorted(categories))}
        boxes_of = defaultdict(list)
        for annotation in self._known(boxes, "annotation", "image_id", images):
            boxes_of[annotation["image_id"]].append(annotation)
        frames_of = defaultdict(list)
        for image in self._known(images, "image", "video_id", videos):
            frames_of[image["video_id"]].append(image)
        records = []
        for number, video in videos.items():
            frames = []
            for image in sorted(frames_of[number], key=lambda image: image["frame_id"]):
                truth = self._truth(boxes_of[image["id"]], image, label_of)
                frames.append(self._frame(image, truth, is_file="file_name" in video))
            if frames:
                records.append(self._video(video, tuple(frames), frames_of[number][0]))
            else:
                self.problems.correct("videos without images left out")
        if not records:
            raise InputError(f"{self.path}: holds no videos with images")
        return VideoSet(tuple(str(categories[c]["name"]) for c in label_of), tuple(records))

    def _table(self, tree: Entry, key: str, needed: tuple[str, ...]) -> dict[int, Entry]:
        """The entries of a list by id, in the order of the file."""
        table: dict[int, Entry] = {}
        for place, entry in enumerate(tree[key]):
            where = f"{key}[{place}]"
            if not isinstance(entry, dict) or type(entry.get("id")) is not int:
                self.problems.add(self.path, where, "not an object with an id")
            elif missing := [k for k in needed if k not in entry]:
                self.problems.add(self.path, where, f"lacks the key {missing[0]!r}")
            elif entry["id"] in table:
                self.problems.add(self.path, where, f"id {entry['id']} is used twice")
            elif key == "images" and not _is_picture(entry):
                self.problems.add(self.path, where, "frame_id, width or height is not a number")
            else:
                table[entry["id"]] = entry
        return table

    def _known(
        self, entries: dict[int, Entry], what: str, key: str, table: dict[int, Entry]
    ) -> list[Entry]:
        """The entries whose `key` names an entry of `table`."""
        known = []
        for entry in entries.values():
            if isinstance(entry[key], int) and entry[key] in table:
                known.append(entry)
            else:
                reason = f"there is no {key.removesuffix('_id')} {entry[key]}"
                self.problems.add(self.path, f"{what} {entry['id']}", reason)
        return known

    def _frame(self, image: Entry, truth: Truth, *, is_file: bool) -> FrameRecord:
        if is_file:
            return FrameRecord(image["frame_id"], truth)
        where = f"{self.path}: image {image['id']}"
        name = image.get("file_name")
        if not isinstance(name, str):
            raise InputError(f"{where}: has no file_name, and its video has none either")
        return FrameRecord(image["frame_id"], truth, inside(self.images, name, where=where))

    def _video(self, video: Entry, frames: tuple[FrameRecord, ...], image: Entry) -> VideoRecord:
        where = f"{self.path}: video {video['id']}"
        name = video.get("file_name")
        return VideoRecord(
            name=str(video["name"]),
            height=int(video.get("height", image["height"])),
            width=int(video.get("width", image["width"])),
            fps=float(video["fps"]) if video.get("fps") else None,
            frames=frames,
            path=None if name is None else inside(self.root, str(name), where=where),
            group=str(video["scene"]) if "scene" in video else None,
        )

    def _truth(self, entries: list[Entry], image: Entry, label_of: dict[int, int]) -> Truth:
        builder = TruthBuilder(width=image["width"], height=image["height"], file=self.path,
                               problems=self.problems)  # fmt: skip
        for entry in entries:
            where = f"annotation {entry['id']}"
            try:
                x, y, w, h = (float(v) for v in entry["bbox"])
                track = int(entry.get("instance_id", -1))
            except (TypeError, ValueError, OverflowError):
                reason = f"bbox {entry['bbox']} or instance_id is not made of numbers"
                self.problems.add(self.path, where, reason)
                continue
            category = entry["category_id"]
            if type(category) is not int or category not in label_of:
                reason = f"there is no category {category}"
                self.problems.add(self.path, where, reason)
                continue
            label = label_of[entry["category_id"]]
            crowd = bool(entry.get("iscrowd", 0))
            builder.add((x, y, x + w, y + h), label, entry=where, track=track, ignore=crowd)
        return builder.build()


def _is_picture(image: Entry) -> bool:
    """Whether the numbers of an image are numbers."""
    sizes = (image["width"], image["height"])
    return type(image["frame_id"]) is int and all(
        isinstance(v, int | float) and 0 < v <= 1e6 for v in sizes
    )
