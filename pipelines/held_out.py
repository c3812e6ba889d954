"""Which documents are held out for validation: those of a source whose content keys are below a limit.

Equal texts have equal keys, so they are on one side; and a document stays where it is when others are added, as long
as the limit does.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from pipelines.text import PIECES

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


def pieces_below(pieces: list[dict[str, Any]], limits: dict[str, int]) -> list[dict[str, Any]]:
    """The pieces that hold validation documents, with the bytes that they hold of them, by estimate."""
    held = []
    for piece in pieces:
        beyond = limits.get(piece["source"], 0) * PIECES - (piece["piece"] << 64)  # in 2**-64 of a piece
        if beyond > 0:
            held.append({**piece, "num_bytes": max(1, int(piece["num_bytes"] * min(1.0, beyond / 2**64)))})
    return held


def _limit_for(need: float, kept: int, documents: Iterable[tuple[int, int]]) -> int:
    """The key below which `need` bytes lie and one document at least, but at most half of the `kept` ones."""
    limit = count = held = 0
    for key, equal in itertools.groupby(documents, key=lambda document: document[0]):
        sizes = [num_bytes for _, num_bytes in equal]
        if 2 * (count + len(sizes)) > kept or (count and held >= need):
            break
        limit, count, held = key + 1, count + len(sizes), held + sum(sizes)
    return limit
