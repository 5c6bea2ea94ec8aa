"""Measure the detection of scene cuts, on the videos of a set joined to one."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rnndet.data.corruption.plan import named_plan
from rnndet.data.frames import iterate
from rnndet.data.records import VideoRecord, VideoSet
from rnndet.errors import RnndetError
from rnndet.evaluation.videos import degraded
from rnndet.messages import counted
from rnndet.structures import Frame
from rnndet.video.scene_cut import SceneCut

LATE = 12  # frames after a joint in which a cut still counts: it may begin with a dropout


def measure_cuts(
    data: VideoSet,
    *,
    degrade: str | None = None,
    cache: Path | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Run `SceneCut` over all videos, one after the other without a reset.

    degrade: corrupt the frames by their `named_plan`, seed 0. Returns frames; joints and seen (the
    detected ones) by whether the two videos belong to the same scene group ("same") or not
    ("other"; all, if the set has no groups); the median delay in frames; and false, the cuts
    elsewhere, as [video, frame].
    Raises RnndetError for fewer than two videos.
    """
    if len(data.videos) < 2:
        raise RnndetError("scene cuts: expected at least two videos, which have a joint")
    detector = SceneCut()
    joints, seen = dict.fromkeys(("other", "same"), 0), dict.fromkeys(("other", "same"), 0)
    delays: list[int] = []
    false: list[tuple[str, int]] = []
    frames, before = 0, None
    for video in data.videos:
        kind = "same" if before is not None and is_same_scene(before, video) else "other"
        waiting = before is not None
        joints[kind] += waiting
        for place, frame in enumerate(_frames(video, degrade, cache)):
            frames += 1
            is_cut = detector.update(frame.image)
            if is_cut and waiting and place <= LATE:
                seen[kind] += 1
                delays.append(place)
                waiting = False
            elif is_cut:
                false.append((video.name, frame.index))
            on_frame()
        before = video
    delay = sorted(delays)[len(delays) // 2] if delays else None
    return {"frames": frames, "joints": joints, "seen": seen, "delay": delay, "false": false}


def is_same_scene(a: VideoRecord, b: VideoRecord) -> bool:
    """Whether both videos are known to belong to the same scene group."""
    return a.group is not None and a.group == b.group


def _frames(video: VideoRecord, degrade: str | None, cache: Path | None) -> Iterable[Frame]:
    frames = iterate(video, cache=cache)
    if degrade is None:
        return frames
    return degraded(video, frames, named_plan(degrade, video.name, len(video.frames)))


def lines_of(report: dict[str, Any]) -> list[str]:
    """Return the report for people."""
    joints, seen, false = report["joints"], report["seen"], report["false"]
    shown = ", ".join(f"{name} frame {index}" for name, index in false)
    return [
        f"{counted(report['frames'], 'frame')}; cuts between videos of different scenes: "
        f"{seen['other']} of {joints['other']} detected, median delay {report['delay']} frames",
        f"between videos of the same scene group: {seen['same']} of {joints['same']}",
        f"false cuts: {len(false)}" + (f" ({shown})" if false else ""),
    ]
