"""Which documents are held out: of each source those with the lowest content keys for validation, those with the
highest for the test.

Equal texts of a source have equal keys, so they are on one side; those of several sources need not be, unless
duplicates are dropped (the default). A document stays where it is when others are added, as long as the limits do. A
corpus of very few documents holds out the last segments of the longest ones instead.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from pipelines.corpus.units import PIECES, piece_of

_PLENTY = 64  # documents: so many vary too little to fall short of half of what is expected


def validation_limits(
    units: list[dict[str, Any]],
    *,
    fraction: float,
    min_bytes: int,
    documents: Callable[[list[dict[str, Any]]], Iterable[tuple[int, int]]],
) -> dict[str, int]:
    """Per source, the content key below which a document is held out.

    By the fraction, and further where that holds out less than the source's share of min_bytes or no document, as long
    as that is at most half of the source's documents and about a quarter of its text.
    documents(units): (key, bytes) of all documents of these units, by ascending key. It is read as far as needed, and
    not at all where the fraction is sure to suffice: only small corpora are.
    """
    if fraction == 0:
        return {}
    total = sum(unit["num_bytes"] for unit in units)
    limits = {}
    for source in dict.fromkeys(unit["source"] for unit in units):
        mine = [unit for unit in units if unit["source"] == source]
        kept, size = sum(u["kept"] for u in mine), sum(u["num_bytes"] for u in mine)
        need = min_bytes * size / max(total, 1)
        limit = int(fraction * 2**64) if kept > 1 else 0
        if fraction * kept < _PLENTY or fraction * size < 2 * need:
            limit = max(limit, _limit_for(min(need, size / 4), kept, documents(mine)))
        limits[source] = limit
    return limits


def key_ranges(
    units: list[dict[str, Any]], limits: dict[str, int], *, test_fraction: float
) -> dict[str, dict[str, tuple[int, int]]]:
    """Per split and source, the content keys (first, last) that belong to it; none of a source that it has nothing of.

    A source of few documents has none to spare for the test.
    """
    kept = Counter()
    for unit in units:
        kept[unit["source"]] += unit["kept"]
    ranges: dict[str, dict[str, tuple[int, int]]] = {"train": {}, "validation": {}, "test": {}}
    for source, count in kept.items():
        low, high = limits.get(source, 0), 2**64
        if count >= _PLENTY:
            high -= int(test_fraction * 2**64)
            low = min(low, high // 2)  # training keeps half of what the test leaves
        for split, first, stop in (("validation", 0, low), ("train", low, max(low, high)), ("test", high, 2**64)):
            if first < stop:
                ranges[split][source] = (first, stop - 1)
    return ranges


def pieces_within(pieces: list[dict[str, Any]], ranges: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """The pieces that hold documents of these key ranges, with the bytes that they hold of them, by estimate."""
    held = []
    for piece in pieces:
        first, last = ranges.get(piece["source"], (1, 0))
        begin, end = (piece["piece"] << 64) // PIECES, ((piece["piece"] + 1) << 64) // PIECES
        share = (min(end, last + 1) - max(begin, first)) / (end - begin)
        if share > 0:
            held.append({**piece, "num_bytes": max(1, int(piece["num_bytes"] * share))})
    return held


def pieces_of(
    pieces: list[dict[str, Any]], tails: dict[int, float], *, but: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The pieces that hold the documents of `tails` and are not in `but`."""
    wanted = {piece_of(key) for key in tails}
    there = {(piece["unit"], piece["piece"]) for piece in but}
    return [p for p in pieces if p["piece"] in wanted and (p["unit"], p["piece"]) not in there]


def tails(
    units: list[dict[str, Any]],
    limits: dict[str, int],
    *,
    min_bytes: int,
    documents: Callable[[list[dict[str, Any]]], Iterable[tuple[int, int]]],
) -> dict[int, float]:
    """Key of a document -> share of its segments, at its end, that is held out for validation.

    Nothing where whole documents make up half of min_bytes, or half of a twentieth of the text. Otherwise up to a
    quarter of each of the longest documents, as many as it takes.
    """
    if not limits or sum(unit["kept"] for unit in units) >= _PLENTY:
        return {}
    have, rest = 0, []
    for source in limits:
        for key, num_bytes in documents([unit for unit in units if unit["source"] == source]):
            if key < limits[source]:
                have += num_bytes
            else:
                rest.append((-num_bytes, key))
    need = min(min_bytes, sum(unit["num_bytes"] for unit in units) // 20)
    cut: dict[int, float] = {}
    for negative, key in sorted(rest) if 2 * have < need else []:
        if have >= need:
            break
        taken = min(need - have, -negative / 4)
        cut[key] = taken / -negative
        have += taken
    return cut


def _limit_for(need: float, kept: int, documents: Iterable[tuple[int, int]]) -> int:
    """The key below which `need` bytes lie and one document at least, but at most half of the `kept` ones."""
    limit = count = held = 0
    for key, equal in itertools.groupby(documents, key=lambda document: document[0]):
        sizes = [num_bytes for _, num_bytes in equal]
        if 2 * (count + len(sizes)) > kept or (count and held >= need):
            break
        limit, count, held = key + 1, count + len(sizes), held + sum(sizes)
    return limit
