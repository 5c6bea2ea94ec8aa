"""What people do today without memory: better scores for stored detections of single frames.

Each changes one `EvaluatedVideo` at a time. Those of OFFLINE look at the whole video, future
included.
"""

from collections.abc import Callable

from rnndet.evaluation.metrics.record import EvaluatedVideo
from rnndet.evaluation.rescoring.seq_nms import seq_nms
from rnndet.evaluation.rescoring.track_smooth import track_smooth

RESCORERS: dict[str, Callable[[EvaluatedVideo], EvaluatedVideo]] = {
    "seq_nms": seq_nms,
    "track_smooth": track_smooth,
}
OFFLINE = {"seq_nms"}

__all__ = ["OFFLINE", "RESCORERS", "seq_nms", "track_smooth"]
