"""Numbers from what was found and what was there."""

from collections.abc import Callable

from rnndet.evaluation.metrics.base import Metric, Numbers, compute
from rnndet.evaluation.metrics.coco_ap import CocoAP, best_f1
from rnndet.evaluation.metrics.delay import AverageDelay
from rnndet.evaluation.metrics.flicker import Flicker
from rnndet.evaluation.metrics.mot import Mot
from rnndet.evaluation.metrics.recovery import Recovery
from rnndet.evaluation.metrics.stability import Stability
from rnndet.evaluation.metrics.streaming import StreamingAP
from rnndet.evaluation.metrics.vid_ap import VidAP

# Every entry takes the class names, and its own options.
METRICS: dict[str, Callable[..., Metric]] = {
    "coco_ap": CocoAP,
    "vid_ap": VidAP,
    "stability": Stability,
    "delay": AverageDelay,
    "recovery": Recovery,
    "flicker": Flicker,
    "mot": Mot,
    "streaming": StreamingAP,
}

__all__ = ["METRICS", "CocoAP", "Metric", "Numbers", "best_f1", "compute"]
