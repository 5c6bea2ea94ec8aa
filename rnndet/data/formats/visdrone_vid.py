"""Read VisDrone, video object detection (Zhu et al. 2021): one text file per image sequence.

`annotations/<sequence>.txt` labels the images `sequences/<sequence>/0000001.jpg`. Rows are
`frame,id,left,top,width,height,score,category,truncation,occlusion`; frames count from 1, pixels
from 0. A row of score 0 is ignored. Categories 0 (ignored regions) and 11 (others) are ignore
regions of no class. The multi-object tracking part has the same form. The frame rate is not
published.
"""

from pathlib import Path

from rnndet.data.formats.text import rows
from rnndet.data.formats.video_builder import (
    VideoBuilder,
    folders_in,
    images_by_number,
    label_files,
    read_each,
)
from rnndet.data.orientation import Orientation, settle
from rnndet.data.problems import Problems
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.data.targets import ANY_CLASS
from rnndet.errors import NothingFoundError

CLASSES = (
    "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus",
    "motor",
)  # fmt: skip
NO_CLASS = (0, 11)  # ignored regions, others


def read(
    root: Path, split: str, problems: Problems, *, orientation: Orientation = "auto"
) -> VideoSet:
    """Read the first of `root/VisDrone2019-VID-<split>`, `root/<split>`, `root` with annotations.

    Raises InputError if there are no labels.
    """
    places = (root / f"VisDrone2019-VID-{split}", root / split, root)
    folder = next((place for place in places if (place / "annotations").is_dir()), None)
    if folder is None:
        tried = ", ".join(str(place) for place in places)
        raise NothingFoundError(
            f"no videos found; expected a folder `annotations` in any of {tried}"
        )
    images = folder / "sequences"
    files = label_files(
        folder / "annotations", "*.txt", videos=folders_in(images), problems=problems
    )

    def read_file(file: Path) -> VideoRecord:
        frames = images_by_number(images / file.stem, first=1)
        builder = VideoBuilder(frames, file=file, problems=problems, orientation=orientation)
        return _video(file, builder, problems)

    videos = read_each(files, read_file, problems)
    return settle(VideoSet(CLASSES, videos), orientation, problems)


def _video(file: Path, builder: VideoBuilder, problems: Problems) -> VideoRecord:
    for line, fields in rows(file, problems, columns=10):
        try:
            frame, track = int(fields[0]), int(fields[1])
            x, y, w, h, score = (float(field) for field in fields[2:7])
            category = int(fields[7])
        except ValueError:
            problems.add(file, line, "a field is not a number")
            continue
        box = (x, y, x + w, y + h)
        if category in NO_CLASS:
            builder.add(frame - 1, box, ANY_CLASS, entry=line, ignore=True)
        elif 1 <= category <= len(CLASSES):
            label, ignore = category - 1, score == 0
            builder.add(frame - 1, box, label, entry=line, track=track, ignore=ignore)
        else:
            problems.add(file, line, f"category {category} is unknown; expected 0 to 11")
    return builder.build(file.stem)
