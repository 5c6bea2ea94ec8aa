"""Numbers from predictions and truths, accumulated frame by frame."""

from rnndet.metrics.base import Evaluator
from rnndet.metrics.coco_ap import CocoAP, best_f1

METRICS = {"coco_ap": CocoAP}

__all__ = ["METRICS", "CocoAP", "Evaluator", "best_f1"]
