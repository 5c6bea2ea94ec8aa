"""Video object detection with recurrent state.

>>> import rnndet
>>> model = rnndet.load_model("everyday")
>>> for result in rnndet.track(model, "clip.mp4"):
...     print(f"{result.frame.time:.2f} s: {len(result.detections)} objects")
0.00 s: ...

`import rnndet` itself loads nothing heavy; each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnndet.config import load_config
    from rnndet.inference.read_results import read_results
    from rnndet.inference.run import track
    from rnndet.inference.stream import Stream
    from rnndet.models.checkpoint import load_model
    from rnndet.models.video_detector import VideoDetector
    from rnndet.structures import Detections
    from rnndet.video.sources.live import LiveOptions
    from rnndet.video.sources.open import open_source

__version__ = "0.1.0"
__all__ = [
    "Detections",
    "LiveOptions",
    "Stream",
    "VideoDetector",
    "load_config",
    "load_model",
    "open_source",
    "read_results",
    "track",
]

_HOMES = {
    "Detections": "structures",
    "LiveOptions": "video.sources.live",
    "Stream": "inference.stream",
    "VideoDetector": "models.video_detector",
    "load_config": "config",
    "load_model": "models.checkpoint",
    "open_source": "video.sources.open",
    "read_results": "inference.read_results",
    "track": "inference.run",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rnndet' has no attribute {name!r}")
    value = getattr(import_module(f"rnndet.{_HOMES[name]}"), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
