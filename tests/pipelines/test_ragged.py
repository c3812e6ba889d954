"""Ragged arrays: taken, merged, cut and joined, by hand and as inverses of each other."""

import numpy as np
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ragged import (
    Blanks,
    concatenate_rows,
    concatenate_segments,
    merge_spans,
    offsets_of,
    owners,
    slice_rows,
    take,
    take_rows,
    take_segments,
)

FLAT, OFFSETS = np.arange(10), np.array([0, 3, 3, 7, 10])


def lists(flat: np.ndarray, offsets: np.ndarray) -> tuple[list, list]:
    return flat.tolist(), offsets.tolist()


def test_offsets_and_owners():
    assert offsets_of(np.array([3, 0, 4, 3])).tolist() == OFFSETS.tolist()
    assert owners(OFFSETS).tolist() == [0, 0, 0, 2, 2, 2, 2, 3, 3, 3]
    assert (offsets_of(np.zeros(0, np.int64)).tolist(), owners(np.array([0])).tolist()) == ([0], [])


def test_members_are_taken_in_any_order_and_more_than_once():
    assert lists(*take(FLAT, OFFSETS, np.array([3, 1, 0]))) == ([7, 8, 9, 0, 1, 2], [0, 3, 3, 6])
    assert lists(*take(FLAT, OFFSETS, np.array([2, 2]))) == ([3, 4, 5, 6, 3, 4, 5, 6], [0, 4, 8])
    assert lists(*take(FLAT, OFFSETS, np.zeros(0, np.int64))) == ([], [0])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 999))
def test_merging_is_the_inverse_of_taking(sizes, seed):
    offsets = offsets_of(np.array(sizes))
    flat = np.arange(2 * offsets[-1]).reshape(-1, 2)
    part = np.random.default_rng(seed).integers(0, 3, len(sizes))
    members = [np.flatnonzero(part == number) for number in range(3)]
    parts = [(each, *take(flat, offsets, each)) for each in members if len(each)]
    assert lists(*merge_spans(parts, len(sizes))) == lists(flat, offsets)


def test_segments_and_rows_are_taken_with_all_that_they_have():
    segments = small.numbers([2, 5, 1], [True, False, True])
    taken = take_segments(segments, np.array([2, 0]))
    tokens = segments.tokens.tolist()
    assert (taken.tokens.tolist(), taken.offsets.tolist()) == (tokens[10:13] + tokens[:4], [0, 3, 7])
    assert taken.ids.tolist() == segments.ids[[2, 0]].tolist()
    assert taken.num_bytes.tolist() == [4, 8]
    rows = take_rows(segments, [np.array([2]), np.array([0, 1])])
    assert (rows.row_offsets.tolist(), rows.ids.tolist()) == ([0, 1, 3], segments.ids[[2, 0, 1]].tolist())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_rows_that_were_sliced_are_joined_to_the_same_rows(row_segments):
    count = sum(row_segments)
    rows = small.numbers(
        list(range(1, count + 1)), [n % 2 == 0 for n in range(count)], rows=offsets_of(np.array(row_segments))
    )
    blanks = Blanks(np.arange(count) % 3, np.arange(4 * count).reshape(-1, 2), np.arange(count + 1) * 2)
    cut = [slice_rows(rows, blanks, row, row + 1) for row in range(len(row_segments))]
    assert [len(one) for one, _ in cut] == row_segments
    joined, joined_blanks = concatenate_rows(cut)
    assert small.contents(joined) == small.contents(rows)
    assert small.contents(joined_blanks) == small.contents(blanks)


def test_of_no_batch_there_are_no_segments():
    none = concatenate_segments([])
    assert (len(none), none.tokens.dtype, none.ids.dtype) == (0, np.uint16, np.uint64)
    some = small.numbers([2, 3], [True, True])
    assert concatenate_segments([some, some]).offsets.tolist() == [0, 4, 9, 13, 18]
