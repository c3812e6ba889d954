"""Find training documents that hold text of evaluation sets.

A document is contaminated when it shares a run of 50 bytes with an entry (`window_index`): about ten English words,
seventeen Chinese characters. (GPT-4's report takes 50 characters, GPT-3's 13 words.) Looking through text costs a tenth
of tokenising it (`benchmarks/store.py --stages`), once per unit and sets.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from infra import storage
from infra.errors import DataError, UserError
from infra.storage import parquet
from pipelines.corpus.clean import repair
from pipelines.corpus.reading import read_documents
from pipelines.corpus.records import Unit
from pipelines.corpus.sources import Source, list_inputs, source_name
from pipelines.corpus.units import read_texts
from pipelines.document import Document, Rejected, without_surrogates
from pipelines.selection.config import EvaluationSet
from pipelines.selection.dropped import NumberedBucket, documents_at
from pipelines.selection.per_unit import UnitJob, file_of, missing
from pipelines.selection.task_entries import PREFIX, task_texts
from pipelines.selection.window_index import (
    WindowIndex,
    find_shared,
    load_index,
    make_index,
    save_index,
    windows_of,
)
from pipelines.stages import Runner, run_stage

_NO_ENTRY = {"missing_field", "not_text"}  # an entry without this field, or with null in it

_REPORT_SCHEMA = pa.schema(
    [("set", pa.string()), ("path", pa.string()), ("offset", pa.int64()), ("document", pa.binary(16))]
)


class EntryName(NamedTuple):
    """Where an entry stands: the name of its set, the path of its file, its byte offset; of a task's item its line."""

    set: str
    path: str
    offset: int


class Entries(NamedTuple):
    """The entries of all evaluation sets; an entry's number is its place in `names`."""

    names: list[EntryName]
    too_short: dict[str, int]
    """Set -> how many of its entries are too short to be found."""
    index: WindowIndex
    digest: str
    """Covers all of the above."""


class Matches(NamedTuple):
    """Documents [N] and the entries [N] that they share text with, by their numbers, ascending."""

    documents: np.ndarray
    entries: np.ndarray


@dataclass(frozen=True)
class Matched:
    """What came of looking through a unit: its documents, and how many pairs of document and entry share text."""

    documents: int
    matches: int


@dataclass(frozen=True)
class SetReport:
    """What came of one evaluation set, as the manifest says it."""

    name: str
    entries: int
    too_short: int
    """Entries that are too short to be found."""
    found: int
    """Entries that some document shares text with."""
    documents: int
    """Documents that share text with some entry."""


def read_entries(sets: list[EvaluationSet]) -> Entries:
    """Read and index evaluation sets. Raises DataError for one without text, or without text in one of its fields."""
    names: list[EntryName] = []
    too_short: dict[str, int] = {}
    hashes, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for one in sets:
        name, numbers, short = _name(one, too_short), dict[tuple[str, int], int](), set[int]()
        for place, text in _texts(one):
            number = numbers.setdefault(place, len(names))
            if number == len(names):
                names.append(EntryName(name, *place))
                short.add(number)
            windows = windows_of(text)
            if len(windows):
                short.discard(number)
                hashes.append(windows)
                owners.append(np.full(len(windows), number, np.int32))
        too_short[name] = len(short)
    index = make_index(np.concatenate(hashes), np.concatenate(owners))
    digest = hashlib.blake2b(json.dumps([names, too_short]).encode(), digest_size=16)
    digest.update(index.hashes.tobytes() + index.entries.tobytes())
    return Entries(names, too_short, index, digest.hexdigest())


def match(entries: Entries, units: list[Unit], text_url: str, runner: Runner) -> Matches:
    """Which documents of these units share text with which entries. A task per unit that was not looked through yet:
    what it finds is kept in <text_url>/contaminated-<sets>.
    """
    folder = storage.join(text_url, f"contaminated-{entries.digest}")
    index_url = storage.join(folder, "index.parquet")
    if not storage.exists(index_url):
        save_index(entries.index, index_url)

    def task(job: UnitJob) -> Matched:
        return check_unit(text_url, job, index_url)

    run_stage(runner, "decontaminate", task, missing(units, folder))
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    first = 0
    for unit in units:
        table = parquet.read_table(file_of(folder, unit.path))
        parts.append((table["row"].to_numpy() + first, table["entry"].to_numpy()))
        first += unit.kept
    return Matches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def check_unit(text_url: str, job: UnitJob, index_url: str) -> Matched:
    """Write (row in the unit, entry) of every match, ascending."""
    index = load_index(index_url)
    rows, entries = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    documents = 0
    for texts in read_texts(text_url, job.unit):
        row, entry = find_shared(texts, index)
        rows.append(row + documents)
        entries.append(entry)
        documents += len(texts)
    table = pa.table({"row": np.concatenate(rows), "entry": np.concatenate(entries)})
    parquet.write_table(job.out, table)
    return Matched(documents, len(table))


def contaminated(entries: Entries, matches: Matches, places: list[NumberedBucket]) -> dict[int, str]:
    """Number of each contaminated document of these buckets -> the first entry that it shares text with, in words."""
    found = {}
    for place in places:
        own = slice(*np.searchsorted(matches.documents, (place.first, place.first + place.bucket.documents)))
        numbers, firsts = np.unique(matches.documents[own], return_index=True)
        for number, entry in zip(numbers.tolist(), matches.entries[own][firsts].tolist(), strict=True):
            name = entries.names[entry]
            found[number] = f"{name.set}: {name.path} at {name.offset}"
    return found


def write_report(entries: Entries, matches: Matches, units: list[Unit], text_url: str, out_url: str) -> list[SetReport]:
    """Write which documents match which entries, also those that are dropped for another reason: a row per pair in
    <out_url>/contamination.parquet. Returns the sums of each set.
    """
    numbers, places = np.unique(matches.documents, return_inverse=True)
    ids = documents_at(units, text_url, numbers)["id"].to_pylist() if len(numbers) else []
    names = [entries.names[entry] for entry in matches.entries.tolist()]
    columns = [*zip(*names, strict=True)] or [[], [], []]
    table = pa.table([*columns, [ids[place] for place in places.tolist()]], schema=_REPORT_SCHEMA)
    parquet.write_table(storage.join(out_url, "contamination.parquet"), table)
    counts = Counter(name.set for name in entries.names)
    found = Counter(entries.names[entry].set for entry in np.unique(matches.entries).tolist())
    pairs = {(name.set, place) for name, place in zip(names, places.tolist(), strict=True)}
    documents = Counter(name for name, _ in pairs)
    return [
        SetReport(name, counts[name], short, found[name], documents[name]) for name, short in entries.too_short.items()
    ]


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
    """((path, offset), text) of every entry, once per field; of a task its line is the offset."""
    several = task_texts(one) if one.reader.startswith(PREFIX) else _read_texts(one)
    for (path, offset), text in several:
        repaired, _ = repair(without_surrogates(text))  # as documents are
        yield (without_surrogates(path), offset), repaired


def _read_texts(one: EvaluationSet) -> Iterator[tuple[tuple[str, int], str]]:
    for name in one.fields or [None]:
        found = False
        for file in list_inputs([_source(one, name)]):
            for item in read_documents(file):
                if isinstance(item, Rejected) and item.lost and item.reason not in _NO_ENTRY:
                    raise DataError(
                        f"a part of the evaluation set {one.url} cannot be read: documents that share it would be kept",
                        why=f"{file.url} at byte {item.offset}: {item.reason}, {item.detail}",
                        try_="mend this file, or take it out of the folder",
                    )
                if isinstance(item, Document) and item.text.strip():
                    found = True
                    yield (file.path, item.offset), item.text
        if not found:
            where = f" in the field {name!r}" if name else ""
            raise DataError(
                f"the evaluation set {one.url} has no entries with text{where}",
                try_="name another reader for it, or other fields, in data.select.decontaminate",
            )


def _source(one: EvaluationSet, field_name: str | None) -> Source:
    options = one.options if field_name is None else {**one.options, "field": field_name}
    return Source(one.reader, one.url, one.name, options)
