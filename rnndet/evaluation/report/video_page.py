"""Write the videos of an evaluation as pages: targets over time, found and missed, on the frames.

The pages are those of `rnndet infer --save html`, with rows of targets and of false positives.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from rnndet.data.frames import image_path, is_cached
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.evaluation.records import EvaluatedVideo, Predictions
from rnndet.evaluation.report.matched_run import MatchedFrame, MatchedRun
from rnndet.inference.writers.view.page import (
    CORRUPTED,
    DETECTED,
    FALSE,
    MISSED,
    UNLABELLED,
    Media,
    Page,
    relative_url,
)
from rnndet.structures import DEFAULT_FPS
from rnndet.system.files import write_text

FOLDER = "videos"  # beside the report
RATE_NOTE = (
    "The video file is shown as it is, each frame at its number divided by the rate of the data. "
    "Where the rate of the file varies, the picture may be that of a frame nearby; "
    "rnndet cache_frames and --cache give exact pictures."
)
HINT = "rnndet cache_frames and --cache give pictures that every browser shows"


def write_video_pages(
    folder: Path,
    run: Predictions,
    data: VideoSet,
    frames: Sequence[tuple[str, int]],
    *,
    cache: Path | None = None,
) -> dict[tuple[str, int], str]:
    """Write a page for each video of `frames`; the URL of each frame, for a page in `folder`.

    frames: video names and frame numbers of the run. data: has these videos; its images, those of
    the cache, or the video files are shown where they are. Raises OutputError.
    """
    matched = MatchedRun(run)
    records = {record.name: record for record in data.videos}
    videos = {video.name: video for video in run.videos}
    for name in dict.fromkeys(name for name, _ in frames):
        known = {record.index for record in records[name].frames}
        video = videos[name].only(lambda frame, known=known: frame.index in known)
        page = video_page(video, matched, run.classes)
        media = _media(records[name], video, folder / FOLDER, cache=cache)
        text = page.to_html(
            title=name,
            facts={
                "weights": str(run.about.get("weights", "")),
                "frames": str(len(page)),
                "found at": f"IoU .5 and scores from {matched.threshold:.3f}",
            },
            notes=[RATE_NOTE] if media.kind == "video" else [],
            media=media,
        )
        write_text(folder / FOLDER / f"{name}.html", text)
    return {
        (name, index): f"{FOLDER}/{quote(os.fsencode(name))}.html"
        f"#t={index / _rate(videos[name]):.3f}"
        for name, index in frames
    }


def video_page(video: EvaluatedVideo, matched: MatchedRun, classes: Sequence[str]) -> Page:
    """The rows of a video: its target tracks, and the false positives of each class."""
    rate = _rate(video)
    steps = np.diff([frame.index for frame in video.frames])
    page = Page(classes, video.size_hw, step=float(np.median(steps) if len(steps) else 1) / rate)
    known = {m.frame.index: m for m in matched.videos[video.name]}
    for frame in video.frames:
        time = frame.index / rate
        flags = CORRUPTED * frame.corrupted + UNLABELLED * (frame.index not in known)
        page.add_frame(index=frame.index, time=time, shown=time, flags=flags)
        if frame.index in known:
            _add_boxes(page, known[frame.index], matched.threshold)
    return page


def _add_boxes(page: Page, m: MatchedFrame, threshold: float) -> None:
    """Add what was found, at the detected boxes, then the misses and the false positives."""
    frame = m.frame
    for i in np.flatnonzero(m.true(threshold)):
        row = _target_row(page, m, int(m.match[i]))
        score, label = float(frame.scores[i]), int(frame.labels[i])
        page.add_box(row, frame.boxes[i].tolist(), score=score, label=label, kind=DETECTED)
    for g in np.flatnonzero(m.missed(threshold)):
        box, label = frame.target_boxes[g].tolist(), int(frame.target_labels[g])
        page.add_box(_target_row(page, m, int(g)), box, score=0.0, label=label, kind=MISSED)
    for i in np.flatnonzero(m.false(threshold)):
        score, label = float(frame.scores[i]), int(frame.labels[i])
        row = page.row(("false", label), "false positives", label=label)
        page.add_box(row, frame.boxes[i].tolist(), score=score, label=label, kind=FALSE)


def _target_row(page: Page, m: MatchedFrame, target: int) -> int:
    label, number = int(m.frame.target_labels[target]), int(m.frame.target_ids[target])
    name = f"#{number}" if number >= 0 else "no id"
    return page.row((label, number), name, label=label)


def _media(
    record: VideoRecord, video: EvaluatedVideo, folder: Path, *, cache: Path | None
) -> Media:
    """The images of the frames where there are any, else the video file."""
    size_wh = (video.size_hw[1], video.size_hw[0])
    if record.path is not None and not is_cached(record, cache):
        return Media("video", (relative_url(record.path, folder),), size_wh, hint=HINT)
    by_index = {frame.index: frame for frame in record.frames}
    urls = tuple(
        relative_url(image_path(record, by_index[frame.index], cache), folder)
        for frame in video.frames
    )
    return Media("images", urls, size_wh)


def _rate(video: EvaluatedVideo) -> float:
    return video.fps or float(DEFAULT_FPS)
