"""Probe the video encoders and decoders of this machine by writing and reading short files."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rnndet.errors import RnndetError
from rnndet.structures import DEFAULT_FPS
from rnndet.video.sink import H264Writer, Mpeg4Writer
from rnndet.video.sources.open import open_source

SIZE_HW = (64, 64)
FRAMES = 5


def encoders() -> dict[str, bool]:
    """Whether each mp4 encoder, by codec, writes a file that can be read again."""
    return {kind.codec: _writes(kind) for kind in (H264Writer, Mpeg4Writer)}


def reads_av1() -> bool | None:
    """Whether AV1 can be decoded; None without PyAV, which encodes the probe."""
    with TemporaryDirectory(prefix="rnndet-probe-") as folder:
        path = Path(folder) / "av1.mp4"
        return _is_readable(path) if _write_av1(path) else None


def _writes(kind: type[H264Writer] | type[Mpeg4Writer]) -> bool:
    with TemporaryDirectory(prefix="rnndet-probe-") as folder:
        path = Path(folder) / "probe.mp4"
        try:
            writer = kind(path, SIZE_HW, DEFAULT_FPS)
            for image in _images():
                writer.write(image)
            writer.close()
        except (ImportError, OSError, ValueError):  # ValueError: PyAV without the encoder
            return False
        return _is_readable(path)


def _write_av1(path: Path) -> bool:
    os.environ.setdefault("SVT_LOG", "0")  # the encoder logs much otherwise
    try:
        import av

        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("libsvtav1", rate=25, options={"preset": "12"})
            stream.height, stream.width = SIZE_HW
            stream.pix_fmt = "yuv420p"
            for image in _images():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    except (ImportError, OSError, ValueError):
        return False
    return True


def _images() -> list[np.ndarray]:
    return [np.full((*SIZE_HW, 3), 40 * number, np.uint8) for number in range(FRAMES)]


def _is_readable(path: Path) -> bool:
    """Whether all frames of a probe can be read."""
    try:
        with open_source(path) as video:
            return sum(1 for _ in video) == FRAMES
    except RnndetError:
        return False
