"""Numbers from what was found and what was there."""

from rnndet.metrics.base import Metric, Numbers, compute
from rnndet.metrics.coco_ap import CocoAP, best_f1

METRICS = {"coco_ap": CocoAP}

__all__ = ["METRICS", "CocoAP", "Metric", "Numbers", "best_f1", "compute"]
