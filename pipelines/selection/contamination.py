"""Find training documents that hold text of evaluation sets.

A document is contaminated when it shares a run of 50 bytes with an entry, case, punctuation and white space aside:
about ten English words, seventeen Chinese characters. (GPT-4's report takes 50 characters, GPT-3's 13 words.) Every
eighth window of 43 bytes of the entries is indexed, so each run of 50 is found, and some of 43 to 49. An index takes at
most 2.5 bytes of memory per byte of evaluation text. Looking through text costs a tenth of tokenising
it (`benchmarks/store.py --stages`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from infra import storage
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.corpus.clean import repair
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs, source_name
from pipelines.corpus.units import read_texts
from pipelines.document import Document, without_surrogates
from pipelines.selection.shingles import normalise, window_hashes

RUN_BYTES = 50
_STRIDE = 8
_WIDTH = RUN_BYTES - _STRIDE + 1
_FILTER_BITS = 32  # per window: so few windows of ordinary text pass that looking them up costs little
_MOST_ENTRIES = 32  # that a window names: a phrase of all entries of a set would name all of them in each document
_INDEX_SCHEMA = pa.schema([("hash", pa.uint64()), ("entry", pa.int32())])


@dataclass
class EvaluationSet:
    """Texts that training must not have seen."""

    reader: str
    """How to read it, as in data.sources."""
    url: str
    """File, folder, glob or URL."""
    fields: list[str] = field(default_factory=list)
    """Fields of an entry that are checked, of readers with a `field` option. Default: the reader's own."""
    name: str | None = None
    """What reports call it. Default: the last component of the URL."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the reader."""


class Index(NamedTuple):
    """Windows of all entries: ascending hashes [W], the entry of each [W], and a bitmap of their highest bits."""

    hashes: np.ndarray
    entries: np.ndarray
    bitmap: np.ndarray


class Entries(NamedTuple):
    """Names of the entries (set, path, offset), how many of each set are too short to be found, their index, and a
    digest of all that.
    """

    names: list[tuple[str, str, int]]
    too_short: dict[str, int]
    index: Index
    digest: str


def read_entries(sets: list[EvaluationSet]) -> Entries:
    """Read and index evaluation sets. Raises DataError for one without text, or without text in one of its fields."""
    names: list[tuple[str, str, int]] = []
    too_short: dict[str, int] = {}
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for one in sets:
        name, known, short = _name(one, too_short), {}, set()
        for key, text in _texts(one):
            number = known.setdefault(key, len(names))
            if number == len(names):
                names.append((name, *key))
                short.add(number)
            windows = _indexed(text)
            if len(windows):
                short.discard(number)
                hashes.append(windows)
                owners.append(np.full(len(windows), number, np.int32))
        too_short[name] = len(short)
    index = _index(np.concatenate(hashes), np.concatenate(owners))
    digest = hashlib.blake2b(json.dumps([names, too_short]).encode(), digest_size=16)
    digest.update(index.hashes.tobytes() + index.entries.tobytes())
    return Entries(names, too_short, index, digest.hexdigest())


def contaminated(documents: list[str], index: Index) -> tuple[np.ndarray, np.ndarray]:
    """(document, entry) of every pair that shares a run, by their numbers, ascending."""
    found = [np.empty(0, np.int64)]
    for windows, owners in window_hashes([normalise(document) for document in documents], _WIDTH):
        likely = np.flatnonzero(_in_bitmap(windows, index.bitmap))
        likely = likely[_is_in(windows[likely], index.hashes)]
        first, last = (np.searchsorted(index.hashes, windows[likely], side) for side in ("left", "right"))
        counts = last - first
        places = np.repeat(last - np.cumsum(counts), counts) + np.arange(counts.sum())
        found.append(np.unique(np.repeat(owners[likely].astype(np.int64), counts) << 32 | index.entries[places]))
    pairs = np.unique(np.concatenate(found))
    return pairs >> 32, pairs & 0xFFFFFFFF


def check_unit(text_url: str, unit: dict[str, Any], index_url: str, out_url: str) -> dict[str, Any]:
    """Write (row in the unit, entry) of every match, ascending."""
    index = load_index(index_url)
    rows, entries = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    documents = 0
    for some in read_texts(storage.join(text_url, f"{unit['path']}.parquet")):
        its, of = contaminated(some, index)
        rows.append(its + documents)
        entries.append(of)
        documents += len(some)
    table = pa.table({"row": np.concatenate(rows), "entry": np.concatenate(entries)})
    parquet.write_table(out_url, table)
    return {"documents": documents, "matches": len(table)}


def save_index(index: Index, url: str) -> None:
    parquet.write_table(url, pa.table([index.hashes, index.entries], schema=_INDEX_SCHEMA))


@lru_cache(maxsize=1)
def load_index(url: str) -> Index:
    """An index that `save_index` wrote, once per process: its name follows from its content."""
    table = parquet.read_table(url)
    return _index(table["hash"].to_numpy(), table["entry"].to_numpy())


def _indexed(text: str) -> np.ndarray:
    """Hashes of the windows of an entry that are indexed: every eighth, and the last."""
    data = normalise(text)
    if len(data) < _WIDTH:
        return np.empty(0, np.uint64)
    windows = np.concatenate([hashes for hashes, _ in window_hashes([data], _WIDTH)])
    return np.append(windows[::_STRIDE], windows[-1:])


def _index(hashes: np.ndarray, entries: np.ndarray) -> Index:
    order = np.lexsort((entries, hashes))
    hashes, entries = hashes[order], entries[order]
    new = np.append(True, (hashes[1:] != hashes[:-1]) | (entries[1:] != entries[:-1]))[: len(hashes)]
    hashes, entries = hashes[new], entries[new]
    few = np.arange(len(hashes)) - np.searchsorted(hashes, hashes) < _MOST_ENTRIES
    hashes, entries = hashes[few], entries[few]
    bits = min(max((len(hashes) * _FILTER_BITS).bit_length(), 10), 30)
    places = hashes >> np.uint64(64 - bits)
    bitmap = np.zeros(1 << (bits - 3), np.uint8)
    np.bitwise_or.at(bitmap, (places >> np.uint64(3)).astype(np.int64), _bit(places))
    return Index(hashes, entries, bitmap)


def _is_in(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Whether each value [N] is among some others; np.isin would sort those again each time."""
    if len(ascending) == 0:
        return np.zeros(len(values), bool)
    return ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values


def _in_bitmap(windows: np.ndarray, bitmap: np.ndarray) -> np.ndarray:
    bits = (len(bitmap) * 8).bit_length() - 1
    places = windows >> np.uint64(64 - bits)
    return (bitmap[(places >> np.uint64(3)).astype(np.int64)] & _bit(places)) != 0


def _bit(places: np.ndarray) -> np.ndarray:
    return np.left_shift(np.uint8(1), (places & np.uint64(7)).astype(np.uint8))


def _name(one: EvaluationSet, others: Iterable[str]) -> str:
    name = source_name(_source(one, None))
    if name in others:
        raise UserError(
            f"two evaluation sets are named {name!r}",
            why="reports name the entries that were found by their set, path and place",
            try_="give one of them another `name`",
        )
    return name


def _texts(one: EvaluationSet) -> Iterator[tuple[tuple[str, int], str]]:
    """((path, offset), text) of every entry, once per field."""
    for name in one.fields or [None]:
        found = False
        for file in list_inputs([_source(one, name)]):
            for item in read_documents(file):
                if isinstance(item, Document) and item.text.strip():
                    found = True
                    yield (
                        (without_surrogates(file.path), item.offset),
                        repair(without_surrogates(item.text))[0],
                    )  # as documents are
        if not found:
            where = f" in the field {name!r}" if name else ""
            raise DataError(
                f"the evaluation set {one.url} has no entries with text{where}",
                try_="another reader for it, or other names of its fields, in data.select.decontaminate",
            )


def _source(one: EvaluationSet, field_name: str | None) -> Source:
    options = one.options if field_name is None else {**one.options, "field": field_name}
    return Source(one.reader, one.url, one.name, options)
