"""Law 17: intervals follow from the answers and a seed; groups are drawn together."""

import numpy as np
import pytest

from pipelines.metrics.intervals import interval


def alone(right: int, wrong: int) -> np.ndarray:
    """What accuracy counts of items, each a group of its own."""
    return np.array([(1.0, 1.0)] * right + [(0.0, 1.0)] * wrong)


def test_the_interval_of_a_share_is_that_of_the_binomial():
    found = interval("accuracy", alone(70, 30))
    assert found == pytest.approx((61.0, 79.0), abs=1.0)  # 70 +- 1.96 * sqrt(0.7 * 0.3 / 100)


def test_the_order_of_items_plays_no_part_and_a_seed_gives_one_interval():
    groups = alone(7, 5)
    assert interval("accuracy", groups) == interval("accuracy", groups[::-1])
    assert interval("accuracy", groups, seed=3) == interval("accuracy", groups, seed=3)


def test_items_that_are_right_and_wrong_together_count_as_one():
    lone, together = alone(60, 40), np.repeat(alone(6, 4), 10, axis=0).reshape(10, 10, 2).sum(1)
    narrow, wide = interval("accuracy", lone), interval("accuracy", together)
    assert narrow
    assert wide
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)


def test_what_is_always_right_has_an_interval_without_width_and_one_group_has_none():
    assert interval("accuracy", alone(50, 0)) == (100.0, 100.0)
    assert interval("accuracy", alone(1, 0)) is None
