"""What video this machine can write and read, found by trying."""

import os
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rnndet.errors import RnndetError
from rnndet.video.sources.open import open_source
from rnndet.video.writers import H264Writer, Mpeg4Writer

SIZE_HW = (64, 64)
FRAMES = 5


def encoders() -> dict[str, bool]:
    """Whether each way of writing mp4 gives a file that can be read again."""
    return {kind.codec: _writes(kind) for kind in (H264Writer, Mpeg4Writer)}


def reads_av1() -> bool | None:
    """Whether AV1 is decoded; None where PyAV is not there to make such a video."""
    with TemporaryDirectory(prefix="rnndet-probe-") as folder:
        path = Path(folder) / "av1.mp4"
        return _is_whole(path) if _write_av1(path) else None


def _writes(kind: type[H264Writer] | type[Mpeg4Writer]) -> bool:
    with TemporaryDirectory(prefix="rnndet-probe-") as folder:
        path = Path(folder) / "probe.mp4"
        try:
            writer = kind(path, SIZE_HW, Fraction(25))
            for image in _images():
                writer.write(image)
            writer.close()
        except (ImportError, OSError, ValueError):  # ValueError: PyAV without the encoder
            return False
        return _is_whole(path)


def _write_av1(path: Path) -> bool:
    os.environ.setdefault("SVT_LOG", "0")  # the encoder talks much otherwise
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


def _is_whole(path: Path) -> bool:
    """True if all frames of the file are read."""
    try:
        with open_source(path) as video:
            return sum(1 for _ in video) == FRAMES
    except RnndetError:
        return False
