"""Confidence intervals by resampling videos.

Frames of one video resemble each other, so whole videos are drawn, with replacement, as many as
there are (the cluster bootstrap). The interval is the percentile interval of the drawn values:
Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. The draws depend only
on the seed and the number of videos.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.base import Metric, Numbers

Intervals = dict[str, tuple[float, float]]

logger = logging.getLogger(__name__)


def interval(
    metric: Metric,
    parts: Sequence[Any],
    *,
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Intervals:
    """The low and high end for every headline number; `parts` are the measured videos.

    NaN, NaN for fewer than two videos. A sample that does not define a number is left out for that
    number; if more than half are left out, there is no interval (NaN, NaN), and a warning is
    logged. Raises RnndetError for impossible values.
    """

    def headline(chosen: Sequence[int]) -> Numbers:
        return metric.headline([parts[i] for i in chosen])

    return _percentiles(headline, len(parts), samples=samples, seed=seed, level=level)


def paired_interval(
    metric: Metric,
    parts_a: Sequence[Any],
    parts_b: Sequence[Any],
    *,
    samples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Intervals:
    """The interval of the difference b - a of two runs over the same videos in the same order.

    Both runs are evaluated on the same draws, so the difficulty of a video cancels: an interval
    without 0 shows a difference even where the two single intervals overlap.
    """
    if len(parts_a) != len(parts_b):
        counts = f"{len(parts_a)} and {len(parts_b)}"
        raise RnndetError(f"the runs have {counts} videos; compare runs over the same videos")

    def difference(chosen: Sequence[int]) -> Numbers:
        a = metric.headline([parts_a[i] for i in chosen])
        b = metric.headline([parts_b[i] for i in chosen])
        return {name: b[name] - a[name] for name in a}

    return _percentiles(difference, len(parts_a), samples=samples, seed=seed, level=level)


def _percentiles(
    numbers: Callable[[Sequence[int]], Numbers],
    count: int,
    *,
    samples: int,
    seed: int,
    level: float,
) -> Intervals:
    """Percentiles of `numbers` over drawn videos; `numbers` takes positions in 0..count-1."""
    if samples < 1 or not 0 < level < 1:
        raise RnndetError(f"samples = {samples}, level = {level}; expected >= 1, and within 0 to 1")
    if count < 2:
        return dict.fromkeys(numbers(range(count)), (float("nan"), float("nan")))
    draws = np.random.default_rng(seed).integers(0, count, (samples, count))
    drawn = [numbers(draw.tolist()) for draw in draws]
    tails = ((1 - level) / 2, (1 + level) / 2)
    return {name: _ends(name, [d[name] for d in drawn], tails) for name in drawn[0]}


def _ends(name: str, values: Sequence[float], tails: tuple[float, float]) -> tuple[float, float]:
    defined = [value for value in values if not np.isnan(value)]
    if 2 * len(defined) < len(values):
        undefined = len(values) - len(defined)
        logger.warning(
            "%s: no interval: undefined in %d of %d samples", name, undefined, len(values)
        )
        return float("nan"), float("nan")
    low, high = np.quantile(defined, tails)
    return float(low), float(high)
