"""Keyed randomness: what is drawn depends on the key and the counter, and on nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.keyed import below, bits, fold, order, scramble, uniform

keys = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20).map(lambda k: np.array(k, np.uint64))


def test_scramble_is_the_splitmix64_finaliser():
    # Published output of splitmix64 seeded with 1234567: scramble(seed + (i + 1) * golden).
    counters = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert scramble(counters).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_scramble_leaves_its_argument_alone():
    x = np.arange(4, dtype=np.uint64)
    scramble(x)
    assert x.tolist() == [0, 1, 2, 3]


def test_scramble_is_injective_on_a_sample():
    assert len(set(scramble(np.arange(1 << 16, dtype=np.uint64)).tolist())) == 1 << 16


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), keys)
def test_fold_keys_each_element_alone(seed, epoch, ids):
    together = fold(seed, epoch, ids)
    assert together.dtype == np.uint64
    assert [int(fold(seed, epoch, np.array([i], np.uint64))[0]) for i in ids] == together.tolist()
    assert fold(seed, epoch, ids[::-1]).tolist() == together[::-1].tolist()


def test_fold_tells_order_number_and_value_of_its_parts_apart():
    parts = [(), (0,), (0, 0), (1, 2), (2, 1), (1,), (12,), (1, 2, 0), (-1,), (2**64 - 2,)]
    assert len({int(fold(*p)[0]) for p in parts}) == len(parts)
    assert fold(-1)[0] == fold(2**64 - 1)[0]  # integers are taken modulo 2**64
    ids = np.arange(1000, dtype=np.uint64)
    seen = {int(k) for seed in range(5) for epoch in range(5) for k in fold(seed, epoch, ids)}
    assert len(seen) == 25_000


def test_an_array_of_equal_values_keys_like_the_value():
    ids = np.arange(5, dtype=np.uint64)
    assert fold(7, np.full(5, 3), ids).tolist() == fold(7, 3, ids).tolist()


@given(keys, st.integers(1, 12), st.integers(1, 12), st.integers(0, 400))
def test_more_columns_change_none(ids, few, more, stream):
    a, b = sorted((few, more))
    assert (bits(ids, b, stream=stream)[:, :a] == bits(ids, a, stream=stream)).all()


def test_streams_do_not_overlap():
    draws = [bits(np.arange(3, dtype=np.uint64), 500, stream=s).ravel().tolist() for s in (0, 1, 2, 101)]
    assert len({d for stream in draws for d in stream}) == 4 * 1500


@given(keys, st.integers(1, 2**31))
def test_below_and_unit_stay_in_range(ids, limit):
    draws = bits(ids, 3, stream=1)
    for extreme in (draws, np.zeros(2, np.uint64), np.full(2, 2**64 - 1, np.uint64)):
        within = below(extreme, limit)
        assert within.dtype == np.int64
        assert ((within >= 0) & (within < limit)).all()
        assert ((uniform(extreme) >= 0) & (uniform(extreme) < 1)).all()


def test_below_takes_a_limit_per_row():
    top = np.full((2, 3), 2**64 - 1, np.uint64)
    assert below(top, np.array([[1], [10]])).tolist() == [[0, 0, 0], [9, 9, 9]]


@pytest.mark.parametrize("columns", [1, 2, 7, 300])
def test_order_is_a_permutation(columns):
    places = order(bits(np.arange(50, dtype=np.uint64), columns, stream=3))
    assert (np.sort(places, axis=1) == np.arange(columns)).all()


def test_order_follows_the_draws_and_breaks_ties_by_column():
    high = np.array([[3, 1, 2], [9, 9, 9], [1, 2, 1]], np.uint64) << np.uint64(16)
    assert order(high).tolist() == [[1, 2, 0], [0, 1, 2], [0, 2, 1]]
    assert order(high | np.uint64(0xFFFF)).tolist() == [[1, 2, 0], [0, 1, 2], [0, 2, 1]]


def chi_square_is_likely(counts: np.ndarray) -> bool:
    """Uniform counts, at a level of about 1e-4 one-sided (normal approximation of chi-square)."""
    expected = counts.sum() / len(counts)
    statistic, freedom = float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1
    return statistic < freedom + 3.7 * math.sqrt(2 * freedom)


def test_draws_are_uniform_and_uncorrelated():
    ids = np.arange(200_000, dtype=np.uint64)  # consecutive keys: the worst case of a weak hash
    draws = uniform(bits(fold(1, 0, ids), 2, stream=1))
    assert chi_square_is_likely(np.bincount((draws[:, 0] * 64).astype(int), minlength=64))
    assert chi_square_is_likely(np.bincount(below(bits(ids, 1, stream=9)[:, 0], 37), minlength=37))
    pairs = (draws * 16).astype(int)
    assert chi_square_is_likely(np.bincount(pairs[:, 0] * 16 + pairs[:, 1], minlength=256))
    for low_bits in (0, 16, 48):
        lanes = (bits(ids, 1, stream=2)[:, 0] >> np.uint64(low_bits)) & np.uint64(63)
        assert chi_square_is_likely(np.bincount(lanes.astype(int), minlength=64))


def test_orders_are_uniform():
    places = order(bits(fold(3, np.arange(48_000, dtype=np.uint64)), 4, stream=1))
    assert chi_square_is_likely(np.unique(places @ [64, 16, 4, 1], return_counts=True)[1])
    assert len(np.unique(places @ [64, 16, 4, 1])) == math.factorial(4)
