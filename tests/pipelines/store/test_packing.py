"""Packing: each segment once, rows that fit with six deviations to spare, whatever the order of the input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import UserError
from pipelines.store.packing import RESERVE_SIGMAS, pack


def rows_of(mean, variance=None, ids=None, *, width: int) -> list[list[int]]:
    mean = np.array(mean, float)
    variance = np.zeros(len(mean)) if variance is None else np.array(variance, float)
    ids = np.arange(len(mean), dtype=np.uint64) if ids is None else ids
    return [row.tolist() for row in pack(mean, variance, ids, width=width)]


def needed(row, mean, variance) -> float:
    return mean[row].sum() + RESERVE_SIGMAS * math.sqrt(variance[row].sum())


def test_longest_first_and_the_fullest_row_takes_the_next():
    # 7; 6; 3 joins 7 (fills it); 3 joins 6; 1 joins 6+3 (fills it); 2 opens a row
    assert rows_of([6, 7, 3, 1, 3], width=10) == [[1, 2], [0, 4, 3]]
    assert rows_of([5, 5, 5], width=10) == [[0, 1], [2]]
    assert rows_of([10], width=10) == [[0]]
    assert rows_of([], width=10) == []


def test_expected_sizes_are_rounded_up():
    assert rows_of([4.2, 5.5], width=10) == [[1], [0]]


def test_equal_sizes_are_ordered_by_id():
    assert rows_of([5, 5, 5], ids=np.array([30, 10, 20], np.uint64), width=10) == [[1, 2], [0]]


@st.composite
def segments(draw):
    n = draw(st.integers(1, 80))
    mean = draw(st.lists(st.floats(1, 100), min_size=n, max_size=n))
    variance = draw(st.lists(st.sampled_from([0.0, 0.5, 4.0, 25.0, 100.0]), min_size=n, max_size=n))
    return np.array(mean), np.array(variance), draw(st.sampled_from([180, 256, 1000]))


@given(segments(), st.randoms(use_true_random=False))
def test_every_segment_once_no_row_too_full_and_any_order(case, random):
    mean, variance, width = case
    ids = np.arange(len(mean), dtype=np.uint64) * np.uint64(7919)
    rows = pack(mean, variance, ids, width=width)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(mean)))
    for row in rows:
        assert needed(row, mean, variance) <= width
    shuffled = np.array(random.sample(range(len(mean)), len(mean)))
    again = pack(mean[shuffled], variance[shuffled], ids[shuffled], width=width)
    assert [ids[shuffled][row].tolist() for row in again] == [ids[row].tolist() for row in rows]


def test_rows_of_above_average_variance_give_up_their_smallest_segments():
    mean, variance = np.array([50.0] * 8 + [49.0] * 8), np.array([36.0] * 8 + [0.0] * 8)
    rows = pack(mean, variance, np.arange(16, dtype=np.uint64), width=200)
    assert sorted(np.concatenate(rows).tolist()) == list(range(16))
    assert all(needed(row, mean, variance) <= 200 for row in rows)


@pytest.mark.parametrize(
    ("mean", "variance", "needs", "remedy"),
    [
        ([300.0, 10.0], [0.0, 0.0], 300, 512),
        ([100.0, 200.0], [0.0, 121.0], 266, 512),
        ([250.0, 240.0], [0.0, 25.0], 270, 512),  # not the longest, but the one that may not fit
        ([100.0] * 99 + [90.0], [0.0] * 99 + [900.0], 270, 512),
    ],
)
def test_a_segment_that_may_not_fit_is_refused_with_the_remedy(mean, variance, needs, remedy):
    with pytest.raises(UserError) as error:
        rows_of(mean, variance, width=256)
    assert f"a segment may need {needs} positions once its blanks are laid out, and a row has 256" in str(error.value)
    assert f"data.row_width={remedy} or more, or a smaller data.sequence_length" in str(error.value)


def test_a_segment_that_just_fits_has_a_row_of_its_own():
    assert rows_of([220.0, 220.0, 30.0], [36.0, 36.0, 0.0], width=256) == [[0], [1], [2]]


def test_wikipedia_like_lengths_fill_the_row():
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.lognormal(5.3, 1.0, 20_000), 560).round()
    variance = 0.05 * sizes
    rows = pack(sizes, variance, np.arange(20_000, dtype=np.uint64), width=8192)
    assert sizes.sum() / (len(rows) * 8192) > 0.97
