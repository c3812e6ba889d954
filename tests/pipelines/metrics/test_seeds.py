"""The spread over seeds, and the interval over items of a mean over seeds: two things, each by itself."""

import numpy as np
import pytest

from pipelines.metrics.intervals import interval, interval_of_mean
from pipelines.metrics.seeds import spread


def right_or_wrong(right: list[int]) -> np.ndarray:
    """What accuracy counts [G, 2], each item a group of its own: 1 is right, 0 wrong."""
    return np.array([(float(one), 1.0) for one in right])


def test_the_spread_is_the_mean_and_the_sample_standard_deviation():
    assert spread([70.0, 74.0, 72.0]) == pytest.approx((72.0, 2.0, 3))
    with pytest.raises(ValueError, match="at least two seeds, got 1"):
        spread([70.0])


def test_equal_models_have_the_interval_of_one():
    one = right_or_wrong([1] * 20 + [0] * 10)
    assert interval_of_mean("accuracy", np.stack([one] * 3)) == interval("accuracy", one)


def test_the_items_of_a_resample_are_the_same_for_all_models():
    # Where one model is right the other is wrong: the mean of both is a half, whatever items are drawn.
    one, other = right_or_wrong([1] * 20 + [0] * 20), right_or_wrong([0] * 20 + [1] * 20)
    assert interval_of_mean("accuracy", np.stack([one, other])) == pytest.approx((50.0, 50.0))
