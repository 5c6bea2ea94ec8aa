"""Metrics of predictions against the ground truth, by name."""

from rnndet.evaluation.metrics.base import Metric
from rnndet.evaluation.metrics.coco_ap import CocoAP
from rnndet.evaluation.metrics.delay import AverageDelay
from rnndet.evaluation.metrics.errors import Errors
from rnndet.evaluation.metrics.flicker import Flicker
from rnndet.evaluation.metrics.mot import Mot
from rnndet.evaluation.metrics.recovery import Recovery
from rnndet.evaluation.metrics.stability import Stability
from rnndet.evaluation.metrics.streaming import StreamingAP
from rnndet.evaluation.metrics.vid_ap import VidAP

# Every entry takes the class names, and options of its own.
METRICS: dict[str, type[Metric]] = {
    "coco_ap": CocoAP,
    "vid_ap": VidAP,
    "errors": Errors,
    "stability": Stability,
    "delay": AverageDelay,
    "recovery": Recovery,
    "flicker": Flicker,
    "mot": Mot,
    "streaming": StreamingAP,
}


def unit(name: str) -> str | None:
    """The unit of a number of any metric; None for a share of 1, which is shown in per cent.

    >>> unit("delay@0.1"), unit("AP50")
    ('frames', None)
    """
    units = {key: value for metric in METRICS.values() for key, value in metric.units.items()}
    return units.get(name.split("/")[0].split("@")[0])
