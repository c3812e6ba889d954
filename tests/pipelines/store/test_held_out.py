"""Which documents are held out: by key, enough of them, and never most of a corpus."""

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.records import Bucket, Unit, UnitBucket
from pipelines.selection.dropped import SelectedText, documents_by_key
from pipelines.store.held_out import buckets_with, buckets_within, key_ranges, tails, validation_limits

KEYS = [int(k) for k in np.random.default_rng(0).integers(0, 1 << 64, 200, dtype=np.uint64)]


DOCUMENTS: dict[str, list[tuple[int, int]]] = {}  # of each unit that a test makes: (key, bytes)


def unit(source: str, keys: list[int], *, num_bytes: int = 1000) -> Unit:
    """A unit whose documents have these keys."""
    path = f"unit-{len(DOCUMENTS)}"
    DOCUMENTS[path] = [(key, num_bytes) for key in keys]
    return small.unit(source, path=path, kept=len(keys), num_bytes=len(keys) * num_bytes)


def by_key(units: list[Unit]) -> list[tuple[int, int]]:
    return sorted(document for unit in units for document in DOCUMENTS[unit.path])


def limits_of(units: list[Unit], *, fraction: float, min_bytes: int) -> dict[str, int]:
    return validation_limits(units, fraction=fraction, min_bytes=min_bytes, documents=by_key)


def below(units: list[Unit], limits: dict[str, int]) -> dict[str, int]:
    """Documents below the limit, per source."""
    counts = {source: 0 for source in limits}
    for one in units:
        counts[one.source] += sum(key < limits[one.source] for key, _ in DOCUMENTS[one.path])
    return counts


def test_a_fraction_of_the_keys_is_held_out():
    units = [unit("a", KEYS[:100]), unit("a", KEYS[100:])]
    limits = limits_of(units, fraction=0.1, min_bytes=0)
    assert limits == {"a": int(0.1 * 2**64)}
    assert below(units, limits)["a"] == sum(k < 0.1 * 2**64 for k in KEYS)


def test_at_least_min_bytes_are_held_out_by_share_of_the_source():
    units = [unit("a", KEYS[:100]), unit("b", KEYS[100:], num_bytes=3000)]
    limits = limits_of(units, fraction=0.0001, min_bytes=40_000)  # a: a quarter of 40,000 bytes, b: the rest
    assert below(units, limits) == {"a": 10, "b": 10}
    for source, keys in (("a", KEYS[:100]), ("b", KEYS[100:])):
        assert limits[source] == sorted(keys)[9] + 1, "the limit is exact: the tenth document is below it"


def test_a_small_unit_beside_a_large_one_does_not_hold_out_the_corpus():
    """min_bytes takes 200 of the large unit's keys; those of the small unit lie anywhere."""
    keys = [int(k) for k in np.random.default_rng(1).integers(0, 1 << 64, 8000, dtype=np.uint64)]
    units = [unit("a", keys), unit("a", KEYS[:50])]
    limits = limits_of(units, fraction=0.005, min_bytes=200_000)
    assert below(units, limits) == {"a": 200}
    assert limits["a"] == sorted([*keys, *KEYS[:50]])[199] + 1


def test_about_a_quarter_of_a_sources_text_makes_up_for_min_bytes_at_most():
    for n, expected in ((2, 1), (3, 1), (4, 1), (9, 3)):
        units = [unit("a", KEYS[:n])]
        assert below(units, limits_of(units, fraction=1e-9, min_bytes=10**9)) == {"a": expected}


def test_equal_documents_are_held_out_together_or_not_at_all():
    few, many = [3] * 4 + KEYS[:8], [3] * 9 + KEYS[:8]
    assert limits_of([unit("a", few)], fraction=2**-64, min_bytes=0) == {"a": 4}
    assert limits_of([unit("a", many)], fraction=2**-64, min_bytes=10**9) == {"a": 1}, "they are more than half"


def test_a_source_of_one_document_is_trained_on():
    units = [unit("a", KEYS[:1]), unit("b", KEYS[1:40])]
    limits = limits_of(units, fraction=0.999, min_bytes=0)
    assert limits["a"] == 0
    assert limits["b"] > 0


def test_one_document_at_least_is_held_out_where_there_are_two():
    units = [unit("a", [1 << 63, 3 << 62])]
    assert below(units, limits_of(units, fraction=1e-9, min_bytes=0)) == {"a": 1}


def test_a_fraction_of_zero_holds_nothing_out():
    assert limits_of([unit("a", KEYS)], fraction=0, min_bytes=10**9) == {}


def test_limits_do_not_depend_on_how_a_source_is_cut_into_units():
    whole = [unit("a", KEYS)]
    parts = [unit("a", KEYS[i::7]) for i in range(7)]
    for min_bytes in (0, 30_000):
        limits = limits_of(parts, fraction=0.01, min_bytes=min_bytes)
        assert limits_of(whole, fraction=0.01, min_bytes=min_bytes) == limits


@pytest.mark.parametrize(("kept", "min_bytes", "reads"), [(12_800, 32_000, 0), (12_799, 0, 1), (12_800, 32_001, 1)])
def test_documents_are_read_only_as_far_as_needed(kept, min_bytes, reads):
    """0.5 % of 12,800 documents are 64 documents, of 64,000 bytes."""
    read: list[int] = []

    def documents(units) -> Iterator[tuple[int, int]]:
        for key in range(1000):
            read.append(key)
            yield key, 1000

    one = small.unit("a", kept=kept, num_bytes=1000 * kept)
    limits = validation_limits([one], fraction=0.005, min_bytes=min_bytes, documents=documents)
    assert limits == {"a": int(0.005 * 2**64)}
    assert bool(read) == bool(reads)
    assert len(read) <= 35, "33 documents to hold out, and what tells that they end"


def test_documents_of_cleaned_units_come_by_key(tmp_path):
    """The same limits from the files of units as from a list of all keys."""
    texts = small.documents(400)
    files = [small.corpus(tmp_path / name, part, name=name) for name, part in (("x", texts[:380]), ("y", texts[380:]))]
    units = [
        replace(small.clean_unit(f, CleanConfig(), f"{tmp_path}/text/{i}"), source="one") for i, f in enumerate(files)
    ]
    text = SelectedText(f"{tmp_path}/text", None)
    read = list(documents_by_key(text, units))
    expected = [pq.read_table(f"{text.url}/{unit.path}.parquet", columns=["key", "num_bytes"]) for unit in units]
    assert (len(read), [key for key, _ in read]) == (400, sorted(key for key, _ in read))
    assert sorted(read) == sorted(tuple(row.values()) for table in expected for row in table.to_pylist())
    documents = functools.partial(documents_by_key, text)
    limits = validation_limits(units, fraction=0.005, min_bytes=15_000, documents=documents)
    assert limits == validation_limits(units, fraction=0.005, min_bytes=15_000, documents=lambda _: sorted(read))
    sizes = [num_bytes for key, num_bytes in read if key < limits["one"]]
    assert sum(sizes[:-1]) < 15_000 <= sum(sizes)
    assert len(sizes) > 70


def bucket(number: int, *, num_bytes: int, unit: str = "u") -> UnitBucket:
    return UnitBucket(unit, "", "a", Bucket(number, 0, 1, num_bytes))


def test_buckets_of_a_split_are_those_that_hold_its_documents():
    buckets = [bucket(number, num_bytes=1000) for number in range(16)]

    def within(first: int, last: int, source: str = "a") -> list[tuple[int, int]]:
        found = buckets_within(buckets, {source: (first, last)})
        return [(place.bucket.number, place.bucket.num_bytes) for place in found]

    limit = (2 << 60) + (1 << 59)  # two buckets and a half
    assert within(0, limit - 1) == [(0, 1000), (1, 1000), (2, 500)]
    assert within(limit, 2**64 - 1)[:2] == [(2, 500), (3, 1000)]
    assert len(within(limit, 2**64 - 1)) == 14
    assert [number for number, _ in within(0, 2 << 60)] == [0, 1, 2], "a single key counts"
    assert [number for number, _ in within(0, (2 << 60) - 1)] == [0, 1]
    assert within(2**64 - 1, 2**64 - 1) == [(15, 1)]
    assert within(0, 2**64 - 1, "b") == buckets_within(buckets, {}) == []


def test_each_key_belongs_to_one_split_and_few_documents_give_no_test():
    units = [unit("a", KEYS[:100]), unit("b", KEYS[100:110]), unit("c", KEYS[:1])]
    top = 2**64 - int(0.25 * 2**64)
    assert key_ranges(units, {"a": 1 << 62, "b": 1 << 63}, test_fraction=0.25) == {
        "train": {"a": (1 << 62, top - 1), "b": (1 << 63, 2**64 - 1), "c": (0, 2**64 - 1)},
        "validation": {"a": (0, (1 << 62) - 1), "b": (0, (1 << 63) - 1)},
        "test": {"a": (top, 2**64 - 1)},
    }
    assert key_ranges(units, {}, test_fraction=0.0)["train"] == dict.fromkeys("abc", (0, 2**64 - 1))


def test_of_few_documents_one_is_held_out_wherever_its_key_lies():
    units = [unit("a", [6 << 61, 7 << 61])]
    limits = limits_of(units, fraction=0.005, min_bytes=10**9)
    first, last = key_ranges(units, limits, test_fraction=0.005)["validation"]["a"]
    assert first <= 6 << 61 <= last < 7 << 61


@given(st.floats(0, 0.99), st.integers(0, 2**64 - 1), st.integers(1, 200))
def test_splits_tile_the_keys_and_leave_something_to_train_on(test_fraction, limit, count):
    ranges = key_ranges([unit("a", KEYS[:count])], {"a": limit}, test_fraction=test_fraction)
    spans = sorted(by_source["a"] for by_source in ranges.values() if "a" in by_source)
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert spans[-1][1] == 2**64 - 1
    assert "a" in ranges["train"]


def test_one_book_holds_out_its_end():
    book = [unit("a", KEYS[:1], num_bytes=1_000_000)]
    limits = limits_of(book, fraction=0.005, min_bytes=20_000)
    assert limits == {"a": 0}
    assert tails(book, limits, min_bytes=20_000, documents=by_key) == {KEYS[0]: 0.02}
    assert tails(book, limits, min_bytes=10**9, documents=by_key) == {KEYS[0]: 0.05}, "a twentieth of the text will do"
    assert tails(book, {}, min_bytes=20_000, documents=by_key) == {}, "nothing is to be held out"


def test_ends_are_taken_from_the_longest_documents_and_only_where_whole_ones_are_too_little():
    units = [unit("a", [10, 20, 30]), unit("b", KEYS[:1], num_bytes=9_000)]
    assert tails(units, {"a": 11, "b": 0}, min_bytes=600, documents=by_key) == {}, "1,000 bytes lie below the limit"
    cut = tails(units, {"a": 0, "b": 0}, min_bytes=600, documents=by_key)
    assert cut == {KEYS[0]: 600 / 9_000}
    buckets = [bucket(number, num_bytes=1) for number in range(16)]
    assert buckets_with(buckets, cut, but=[]) == [buckets[KEYS[0] >> 60]]
    assert buckets_with(buckets, cut, but=buckets) == []
