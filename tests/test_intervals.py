"""Intervals: resampling of videos, with a metric that is a mean."""

import math
from collections.abc import Sequence

import pytest

from rnndet.errors import RnndetError
from rnndet.evaluation.metrics.base import Numbers
from rnndet.evaluation.metrics.intervals import interval, paired_interval


class Mean:
    """Every part is a number."""

    rule = "mean"

    def measure(self, video: object) -> float:
        raise NotImplementedError

    def combine(self, parts: Sequence[float]) -> Numbers:
        return self.headline(parts) | {"more": 0.0}

    def headline(self, parts: Sequence[float]) -> Numbers:
        """NaN as soon as no part is positive."""
        mean = sum(parts) / len(parts) if parts else float("nan")
        return {"mean": mean, "strict": mean if any(part > 0 for part in parts) else float("nan")}


VALUES = [0.1, 0.9, 0.4, 0.5, 0.7, 0.2]


def test_two_videos_have_the_interval_of_their_values() -> None:
    # The mean of two draws of 0 and 1 is 0, 1/2 or 1 with 1/4, 1/2, 1/4 of the draws each.
    assert interval(Mean(), [0.0, 1.0])["mean"] == (0.0, 1.0)
    assert interval(Mean(), [0.0, 1.0], level=0.2)["mean"] == (0.5, 0.5)


def test_only_headline_numbers_have_intervals() -> None:
    assert interval(Mean(), VALUES).keys() == {"mean", "strict"}


def test_interval_holds_the_number_and_a_lower_level_is_narrower() -> None:
    low, high = interval(Mean(), VALUES)["mean"]
    narrow_low, narrow_high = interval(Mean(), VALUES, level=0.5)["mean"]
    assert low < narrow_low < sum(VALUES) / 6 < narrow_high < high


def test_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    assert interval(Mean(), VALUES, seed=3) == interval(Mean(), VALUES, seed=3)
    assert interval(Mean(), VALUES, seed=3) != interval(Mean(), VALUES, seed=4)


def test_equal_videos_have_no_width() -> None:
    assert interval(Mean(), [0.5] * 8)["mean"] == (0.5, 0.5)


@pytest.mark.parametrize("parts", [[], [0.5]])
def test_fewer_than_two_videos_have_no_interval(parts: list[float]) -> None:
    for numbers in (interval(Mean(), parts), paired_interval(Mean(), parts, parts)):
        assert all(math.isnan(end) for end in numbers["mean"])


def test_samples_that_do_not_define_the_number_are_left_out() -> None:
    # Without the video 1 there is no "strict": a quarter of the draws.
    assert interval(Mean(), [0.0, 1.0])["strict"] == (0.5, 1.0)


def test_more_than_half_undefined_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    numbers = interval(Mean(), [0.0, 0.0, 0.0])
    assert all(math.isnan(end) for end in numbers["strict"]) and numbers["mean"] == (0.0, 0.0)
    assert caplog.messages == ["strict: no interval: undefined in 200 of 200 samples"]


def test_a_model_does_not_differ_from_itself() -> None:
    assert paired_interval(Mean(), VALUES, VALUES)["mean"] == (0.0, 0.0)


def test_difference_is_taken_on_the_same_videos() -> None:
    # Better by exactly 1/4 on every video: certain, though the single intervals overlap.
    better = [value + 0.25 for value in VALUES]
    assert paired_interval(Mean(), VALUES, better)["mean"] == pytest.approx((0.25, 0.25))
    assert interval(Mean(), VALUES)["mean"][1] > interval(Mean(), better)["mean"][0]


def test_different_numbers_of_videos_are_refused() -> None:
    with pytest.raises(RnndetError, match="6 and 5 videos"):
        paired_interval(Mean(), VALUES, VALUES[1:])


@pytest.mark.parametrize("options", [{"samples": 0}, {"level": 0.0}, {"level": 95}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(RnndetError, match="expected"):
        interval(Mean(), VALUES, **options)
