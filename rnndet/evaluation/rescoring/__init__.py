"""Rescoring of stored single-frame detections over time, as baselines for temporal models.

Each function changes one `EvaluatedVideo`. Those in OFFLINE use the whole video, future included.
"""

from collections.abc import Callable

from rnndet.evaluation.records import EvaluatedVideo
from rnndet.evaluation.rescoring.seq_nms import seq_nms
from rnndet.evaluation.rescoring.track_smooth import track_smooth

RESCORERS: dict[str, Callable[[EvaluatedVideo], EvaluatedVideo]] = {
    "seq_nms": seq_nms,
    "track_smooth": track_smooth,
}
OFFLINE = {"seq_nms"}
