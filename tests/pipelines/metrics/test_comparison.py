"""Comparisons: golden cases of exact McNemar and Holm; what differs is told apart, what does not is not, as often as it
is said.
"""

import numpy as np
import pytest
from scipy.stats import norm

from pipelines.metrics.comparison import Difference, difference, holm, mcnemar


def accuracy(sums: np.ndarray) -> np.ndarray:
    return 100.0 * sums[..., 0] / sums[..., 1]


def sums(right: np.ndarray) -> np.ndarray:
    """[S, N] of right or wrong -> what accuracy counts of each item by itself, [S, N, 2]."""
    return np.stack([right, np.ones_like(right)], axis=-1).astype(np.int64)


def answers(right: int, of: int) -> np.ndarray:
    return np.arange(of) < right


def test_the_exact_test_of_mcnemar():
    both = np.array([True] * 30 + [False] * 10)
    for gained, lost, expected in ((0, 0, 1.0), (6, 0, 0.03125), (8, 2, 0.109375), (5, 5, 1.0), (1, 9, 0.021484375)):
        first = np.concatenate([both, answers(0, gained), answers(lost, lost)])
        second = np.concatenate([both, answers(gained, gained), answers(0, lost)])
        assert mcnemar(first, second) == pytest.approx(expected)
        assert mcnemar(second, first) == pytest.approx(expected)


def test_the_correction_of_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_the_interval_of_a_difference_is_that_of_paired_items():
    # 30 items better, 10 worse, 160 equal: mean 0.1, deviation of one item sqrt(0.2 - 0.01).
    change = np.array([1] * 30 + [-1] * 10 + [0] * 160)
    first, second = (change < 0) | (np.arange(200) >= 120), (change > 0) | (np.arange(200) >= 120)
    found = difference(accuracy, sums(first[None]), sums(second[None]))
    assert found is not None
    half = 100 * 1.96 * np.sqrt(0.19 / 200)
    assert (found.value, found.low, found.high) == pytest.approx((10.0, 10 - half, 10 + half), abs=0.5)
    assert found.p == pytest.approx(2 * norm.sf(10 / (half / 1.96)), abs=0.001)
    swapped = difference(accuracy, sums(second[None]), sums(first[None]))
    assert swapped is not None
    assert (swapped.value, swapped.low) == pytest.approx((-found.value, -found.high), abs=0.5)


def test_equal_answers_cannot_be_told_apart():
    same = sums(answers(40, 60)[None])
    assert difference(accuracy, same, same) == Difference(0.0, 0.0, 0.0, 1.0)
    one = same.sum(1, keepdims=True)
    assert difference(accuracy, one, one) is None, "a single group says nothing"


def test_items_of_a_group_are_drawn_together():
    rng = np.random.default_rng(0)
    right = rng.random((2, 40)) < np.array([[0.4], [0.6]])
    alone = difference(accuracy, *(sums(np.repeat(one, 5)[None]) for one in right))
    together = difference(accuracy, *(5 * sums(one[None]) for one in right))
    assert alone is not None
    assert together is not None
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_seeds_that_spread_make_the_interval_wide_and_equal_ones_leave_it():
    base = answers(50, 100)
    spread = np.stack([answers(count, 100) for count in (40, 50, 60)])
    still, moving = (difference(accuracy, sums(one), sums(one)) for one in (np.stack([base] * 3), spread))
    assert still is not None
    assert moving is not None
    assert (still.low, still.high) == (0.0, 0.0)
    # Items cancel, as both groups answer alike; the mean of three seeds deviates by 10 / sqrt(3), on both sides.
    assert moving.high == pytest.approx(1.96 * 10 * np.sqrt(2 / 3), rel=0.15)
    assert moving.p > 0.9


@pytest.mark.parametrize("seeds", [1, 3])
def test_models_that_do_not_differ_are_rarely_told_apart(seeds):
    rng = np.random.default_rng(seeds)
    ps = []
    for _ in range(150):
        hardness = rng.random(120)
        skill = rng.normal(0.0, 0.04 if seeds > 1 else 0.0, (2, seeds, 1))
        right = rng.random((2, seeds, 120)) < np.clip(hardness + skill, 0, 1)
        found = difference(accuracy, sums(right[0]), sums(right[1]), resamples=300)
        assert found is not None
        ps.append(found.p)
    assert 0.01 <= np.mean(np.array(ps) < 0.05) <= 0.12  # 0.05, within what 150 trials show
