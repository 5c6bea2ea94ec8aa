"""Pixels in and out: sources, sinks, drawing, made-up clips. The only package that imports cv2."""

from rnndet.video.annotate import Annotator
from rnndet.video.base import ReadCounts, Source
from rnndet.video.draw import draw
from rnndet.video.excerpt import Excerpt
from rnndet.video.image import read_image, write_image
from rnndet.video.key_frames import KeyFrames, choose_key_frames
from rnndet.video.listing import expand
from rnndet.video.live import Camera, LiveOptions
from rnndet.video.pictures import ImageFolder
from rnndet.video.scene_cut import SceneCut
from rnndet.video.sink import JsonLinesSink, VideoSink, describe, describe_result
from rnndet.video.source import VideoFile, open_source, read_frames
from rnndet.video.synthetic import SyntheticClip

__all__ = [
    "Annotator",
    "Camera",
    "Excerpt",
    "ImageFolder",
    "JsonLinesSink",
    "KeyFrames",
    "LiveOptions",
    "ReadCounts",
    "SceneCut",
    "Source",
    "SyntheticClip",
    "VideoFile",
    "VideoSink",
    "choose_key_frames",
    "describe",
    "describe_result",
    "draw",
    "expand",
    "open_source",
    "read_frames",
    "read_image",
    "write_image",
]
