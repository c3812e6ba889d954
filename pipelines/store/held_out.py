"""Which documents are held out: of each source those with the lowest content keys for validation, those with the
highest for the test.

    key     0 ... limit ...................................... high ... 2**64
            | validation |              train                 |  test  |

Equal texts of a source have equal keys, so they are on one side; those of several sources need not be, unless
duplicates are dropped (the default). A document stays where it is when others are added, as long as the limits do. A
corpus of very few documents holds out the last segments of the longest ones instead:

    longest document    [segment][segment][segment][segment][segment][segment]
                        |                train                       | valid. |
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pipelines.corpus.ledger import by_source
from pipelines.corpus.records import Unit, UnitBucket, bucket_number, bucket_start, buckets_of

_PLENTY = 64  # documents: so many vary too little to fall short of half of what is expected

Documents = Callable[[list[Unit]], Iterable[tuple[int, int]]]
"""documents(units): (key, bytes) of all documents of these units, by ascending key."""
KeyRange = tuple[int, int]
"""The first and the last content key."""


@dataclass(frozen=True)
class Cuts:
    """How documents are split."""

    ranges: dict[str, dict[str, KeyRange]]
    """Split -> source -> content keys of its documents; no entry for a source that the split has nothing of."""
    tails: dict[int, float]
    """Content key of a document -> share of its segments, at its end, that goes from training to validation."""


def cut(
    units: list[Unit], *, validation_fraction: float, test_fraction: float, min_bytes: int, documents: Documents
) -> Cuts:
    """Split the documents of these units. min_bytes: text for validation at least, where the corpus allows."""
    limits = validation_limits(units, fraction=validation_fraction, min_bytes=min_bytes, documents=documents)
    ends = tails(units, limits, min_bytes=min_bytes, documents=documents)
    return Cuts(key_ranges(units, limits, test_fraction=test_fraction), ends)


def buckets_of_splits(units: list[Unit], cuts: Cuts) -> dict[str, list[UnitBucket]]:
    """The buckets that hold documents of each split, with the bytes that they hold of them, by estimate."""
    buckets = buckets_of(units)
    found = {split: buckets_within(buckets, ranges) for split, ranges in cuts.ranges.items()}
    found["validation"] += buckets_with(buckets, cuts.tails, but=found["validation"])
    return found


def validation_limits(units: list[Unit], *, fraction: float, min_bytes: int, documents: Documents) -> dict[str, int]:
    """Per source, the content key below which a document is held out.

    By the fraction, and further where that holds out less than the source's share of min_bytes or no document, as long
    as that is at most half of the source's documents and about a quarter of its text. `documents` is read as far as
    needed, and not at all where the fraction is sure to suffice: only small corpora are.
    """
    if fraction == 0:
        return {}
    total = sum(unit.num_bytes for unit in units)
    limits = {}
    for source, own in by_source(units).items():
        kept, size = sum(unit.kept for unit in own), sum(unit.num_bytes for unit in own)
        need = min_bytes * size / max(total, 1)
        limit = int(fraction * 2**64) if kept > 1 else 0
        if fraction * kept < _PLENTY or fraction * size < 2 * need:
            limit = max(limit, _limit_for(min(need, size / 4), kept, documents(own)))
        limits[source] = limit
    return limits


def key_ranges(units: list[Unit], limits: dict[str, int], *, test_fraction: float) -> dict[str, dict[str, KeyRange]]:
    """Per split and source, the content keys that belong to it; no entry for a source that it has nothing of.

    A source of few documents has none to spare for the test.
    """
    ranges: dict[str, dict[str, KeyRange]] = {"train": {}, "validation": {}, "test": {}}
    for source, own in by_source(units).items():
        low, high = limits.get(source, 0), 2**64
        if sum(unit.kept for unit in own) >= _PLENTY:
            high -= int(test_fraction * 2**64)
            low = min(low, high // 2)  # training keeps half of what the test leaves
        for split, first, stop in (("validation", 0, low), ("train", low, max(low, high)), ("test", high, 2**64)):
            if first < stop:
                ranges[split][source] = (first, stop - 1)
    return ranges


def buckets_within(buckets: list[UnitBucket], ranges: dict[str, KeyRange]) -> list[UnitBucket]:
    """The buckets that hold documents of these ranges of their sources, with the bytes of them, by estimate."""
    found = []
    for place in buckets:
        bucket = place.bucket
        first, last = ranges.get(place.source, (1, 0))
        begin, end = bucket_start(bucket.number), bucket_start(bucket.number + 1)
        share = (min(end, last + 1) - max(begin, first)) / (end - begin)
        if share > 0:
            found.append(replace(place, bucket=replace(bucket, num_bytes=max(1, int(bucket.num_bytes * share)))))
    return found


def buckets_with(buckets: list[UnitBucket], tails: dict[int, float], *, but: list[UnitBucket]) -> list[UnitBucket]:
    """The buckets that hold the documents of `tails` and are not among `but`."""
    wanted = {bucket_number(key) for key in tails}
    there = {(place.unit, place.bucket.number) for place in but}
    return [
        place for place in buckets if place.bucket.number in wanted and (place.unit, place.bucket.number) not in there
    ]


def tails(units: list[Unit], limits: dict[str, int], *, min_bytes: int, documents: Documents) -> dict[int, float]:
    """Key of a document -> share of its segments, at its end, that is held out for validation.

    Nothing where whole documents make up half of min_bytes, or half of a twentieth of the text. Otherwise up to a
    quarter of each of the longest documents, as many as it takes.
    """
    if not limits or sum(unit.kept for unit in units) >= _PLENTY:
        return {}
    have, rest = 0, []
    for source, own in by_source(units).items():
        for key, num_bytes in documents(own):
            if key < limits[source]:
                have += num_bytes
            else:
                rest.append((-num_bytes, key))
    need = min(min_bytes, sum(unit.num_bytes for unit in units) // 20)
    shares: dict[int, float] = {}
    for negative, key in sorted(rest) if 2 * have < need else []:
        if have >= need:
            break
        taken = min(need - have, -negative / 4)
        shares[key] = taken / -negative
        have += taken
    return shares


def _limit_for(need: float, kept: int, documents: Iterable[tuple[int, int]]) -> int:
    """The key below which `need` bytes lie and one document at least, but at most half of the `kept` ones."""
    limit = count = num_bytes = 0
    for key, equal in itertools.groupby(documents, key=lambda document: document[0]):
        sizes = [size for _, size in equal]
        if 2 * (count + len(sizes)) > kept or (count and num_bytes >= need):
            break
        limit, count, num_bytes = key + 1, count + len(sizes), num_bytes + sum(sizes)
    return limit
