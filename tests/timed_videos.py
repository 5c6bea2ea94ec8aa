"""Encode short videos with given timestamps, for tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest


def encode(
    path: Path,
    ticks: Sequence[int],
    *,
    codec: str = "mpeg2video",
    fps: int = 30,
    form: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A grey frame for each timestamp, in frames of 1 / fps; equal ones are kept if they can be."""
    av = pytest.importorskip("av")
    try:
        av.codec.Codec(codec, "w")
    except (av.FFmpegError, ValueError):
        pytest.skip(f"PyAV without {codec}")
    unshifted = {"avoid_negative_ts": "disabled"} | (container_options or {})
    with av.open(str(path), "w", format=form, options=unshifted) as container:
        stream = container.add_stream(codec, rate=fps, options={"bf": "0"} | (options or {}))
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        packets = []
        for k in range(len(ticks)):
            image = np.full((48, 64, 3), 20 + 5 * (k % 40), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, fps)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet in packets:  # the encoder gave k to frame k; B-frames keep their order
            packet.dts = packet.dts + ticks[0] if "bf" in (options or {}) else ticks[packet.pts]
            packet.pts = ticks[packet.pts]
            container.mux(packet)
    return path
