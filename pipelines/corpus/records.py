"""What is known of cleaned text without reading it: units, and the buckets that their documents lie in.

A document's content key decides its bucket, so equal texts of all units lie in buckets of the same number:

    key      0 ............................................ 2**64
    bucket   |   0   |   1   |   2   |      ...      |   15   |
"""

from dataclasses import dataclass
from typing import Any

BUCKETS = 16


@dataclass(frozen=True)
class Bucket:
    """Documents of a unit whose content keys lie in one of BUCKETS equal ranges: a row group of the unit's file."""

    number: int
    """Which of the ranges, from 0."""
    group: int
    """Row group of the unit's file; empty buckets have none, and are not listed."""
    documents: int
    num_bytes: int
    """Bytes of their texts in UTF-8."""


@dataclass(frozen=True)
class Unit:
    """One Parquet file of documents that were kept, and one ledger of those that were dropped."""

    source: str
    around: tuple[str, str]
    """What stands before and after a file's path in its URL."""
    path: str
    """Names the unit's files in the folder of the cleaned text: <path>.parquet, <path>.ledger.parquet."""
    read: int
    """Documents in all: kept and dropped."""
    kept: int
    dropped: dict[str, int]
    """Reason -> documents."""
    malformed: dict[str, int]
    """Reason -> dropped documents that speak against their file, such as broken lines."""
    lost: dict[str, int]
    """Reason -> bytes of the files, as stored, that gave no document because of it."""
    repaired: dict[str, int]
    """Repair -> kept documents."""
    sampled: int
    """Documents that were looked at for marks."""
    marks: dict[str, int]
    """Mark, as `marks.find_marks` names it -> documents of the sample."""
    holes: dict[str, int]
    """What the reader left out of sentences of kept documents, the most frequent names -> how often."""
    num_bytes: int
    """Bytes of the kept texts in UTF-8."""
    stored_bytes: int
    """Bytes of the files that it was read from, as stored; a file that makes several units counts in the first one."""
    buckets: tuple[Bucket, ...]
    digest: str
    """Covers identities and texts of what was kept, identities and reasons of what was dropped."""


@dataclass(frozen=True)
class UnitBucket:
    """A bucket by itself, with what a task needs to know of its unit."""

    unit: str
    """The unit's path."""
    digest: str
    """The unit's digest."""
    source: str
    bucket: Bucket


def buckets_of(units: list[Unit]) -> list[UnitBucket]:
    """All buckets of these units, in order."""
    return [UnitBucket(unit.path, unit.digest, unit.source, bucket) for unit in units for bucket in unit.buckets]


def bucket_number(key: int) -> int:
    """The number of the bucket that a content key falls into."""
    return key * BUCKETS >> 64


def bucket_start(number: int) -> int:
    """The first content key of a bucket; 2**64 for the one behind the last."""
    return (number << 64) // BUCKETS


def unit_record(unit: Unit) -> dict[str, Any]:
    """A unit as JSON values. The format has another word for buckets: pieces."""
    return {
        "source": unit.source,
        "around": list(unit.around),
        "path": unit.path,
        "read": unit.read,
        "kept": unit.kept,
        "dropped": unit.dropped,
        "malformed": unit.malformed,
        "lost": unit.lost,
        "repaired": unit.repaired,
        "sampled": unit.sampled,
        "marks": unit.marks,
        "holes": unit.holes,
        "num_bytes": unit.num_bytes,
        "stored_bytes": unit.stored_bytes,
        "pieces": [
            {"piece": one.number, "group": one.group, "documents": one.documents, "num_bytes": one.num_bytes}
            for one in unit.buckets
        ],
        "digest": unit.digest,
    }


def unit_of(record: dict[str, Any]) -> Unit:
    """The unit whose `unit_record` this is."""
    before, after = record.get("around", ("", ""))  # the first records of this format had none, and counted less
    record = {"lost": {}, "sampled": 0, "marks": {}, "holes": {}, "stored_bytes": record["num_bytes"], **record}
    buckets = [
        Bucket(piece["piece"], piece["group"], piece["documents"], piece["num_bytes"]) for piece in record["pieces"]
    ]
    others = {name: value for name, value in record.items() if name not in ("around", "pieces")}
    return Unit(around=(before, after), buckets=tuple(buckets), **others)
