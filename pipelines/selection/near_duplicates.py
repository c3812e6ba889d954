"""Near duplicates by MinHash and locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998), in numpy.

A text's signature has the smallest hash of its windows in each of 128 bins (one permutation hashing, Li et al. 2012;
empty bins borrow from others, Shrivastava 2017), so two texts agree in a bin with the probability of their Jaccard
similarity s. Texts that agree in all 8 bins of one of 16 bands are compared by their whole signatures; similar ones are
linked, and of linked texts the first is kept.

    bins     0 . . . . . . 7   8 . . . . . .15   ...   120 . . . .127
    one      5 2 9 4 1 7 3 8 | 6 6 1 0 2 4 9 3 | ... | 1 8 5 2 0 4 4 7
    other    5 2 9 4 1 7 3 8 | 6 0 1 3 2 4 9 3 | ... | 1 8 9 2 0 4 2 7     agree in band 0, and in 20 of these 24 bins
                  band 0            band 1                  band 15

A pair meets in a band with probability 1 - (1 - s**8)**16: 0.9999 at 0.9, 0.95 at 0.8, 0.61 at 0.7. Signatures are made
once per unit of text; they cost a fifth of tokenising (`benchmarks/store.py --stages`) and 256 bytes a document on
disk. A band's task sorts 8 bytes of every document.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from infra import storage
from infra.storage import parquet
from pipelines import keyed
from pipelines.corpus.records import Unit
from pipelines.corpus.units import read_texts
from pipelines.selection import dropped
from pipelines.selection.per_unit import UnitJob, file_of, missing
from pipelines.selection.shingles import normalise, window_hashes
from pipelines.stages import Runner, run_stage

VERSION = 1  # of the signatures
BINS, BANDS = 128, 16
BAND_NAMES = [f"band{band:02d}" for band in range(BANDS)]
SCHEMA = pa.schema([*((name, pa.uint64()) for name in BAND_NAMES), ("check", pa.binary(BINS))])
"""A document's hash in each band, and the lowest byte of each bin of its signature."""
_WIDTH = 24  # bytes of a window: about five English words
_EMPTY = np.uint32(0xFFFFFFFF)
_BAND_SEED = 401
_PAIRS = 1 << 16  # whose signatures are compared at a time


@dataclass(frozen=True)
class Signed:
    """The outcome of signing one unit."""

    documents: int


@dataclass(frozen=True)
class Linked:
    """The outcome of comparing in one band: pairs of similar documents."""

    links: int


class Links(NamedTuple):
    """Pairs of similar documents by their numbers: later [E] and earlier [E]."""

    later: np.ndarray
    earlier: np.ndarray


def signatures(documents: list[str]) -> np.ndarray:
    """uint32 [N, BINS]; all 0xFFFFFFFF of a text without letters and digits."""
    found = np.full((len(documents), BINS), _EMPTY)
    for hashes, owners in window_hashes([normalise(document) for document in documents], _WIDTH):
        places = owners.astype(np.int64) * BINS + (hashes & np.uint64(BINS - 1)).astype(np.int64)
        np.minimum.at(found.reshape(-1), places, (hashes >> np.uint64(32)).astype(np.uint32))
    return _densified(found)


def similarity(checks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity [N] of texts by the lowest bytes of their signatures, uint8 [N, BINS]."""
    agree = (checks == others).mean(axis=1)
    return np.maximum((agree - 1 / 256) / (1 - 1 / 256), 0)


def drop_near_duplicates(threshold: float, units: list[Unit], text_url: str, out_url: str, runner: Runner) -> None:
    """Write what to drop of these units because it is similar to an earlier document: <out_url>/near-<bucket>.parquet.

    threshold: the least similarity. Documents in <out_url>/first-<bucket>.parquet are dropped already, and count as
    gone. A task per unit signs it, where <text_url>/near-<version> has no signatures of it; a task per band links.
    """
    folder = storage.join(text_url, f"near-{VERSION}")
    signed = [file_of(folder, unit.path) for unit in units]
    link_urls = [storage.join(out_url, f"links-{band:02d}.parquet") for band in range(BANDS)]

    def sign(job: UnitJob) -> Signed:
        return Signed(write_signatures(read_texts(text_url, job.unit), job.out))

    def link(band: int) -> Linked:
        gone = [
            parquet.read_table(url, ["number"])["number"].to_numpy() for url in dropped.drop_files(out_url, "first-")
        ]
        links = link_band(signed, np.concatenate(gone), band, threshold)
        parquet.write_table(link_urls[band], pa.table(links._asdict()))
        return Linked(len(links.later))

    run_stage(runner, "sign", sign, missing(units, folder))
    run_stage(runner, "compare", link, [band for band, url in enumerate(link_urls) if not storage.exists(url)])
    table = pa.concat_tables([parquet.read_table(url) for url in link_urls])
    links = Links(*(table[name].to_numpy() for name in Links._fields))
    _write_drops(*first_of_each(links), units, text_url, out_url)


def write_signatures(texts: Iterable[list[str]], out_url: str) -> int:
    """Write band hashes and signatures of documents, in their order; returns how many. texts: a batch at a time."""
    rows = 0
    with parquet.writer(out_url, SCHEMA, compression="lz4") as writer:
        for documents in texts:
            found = signatures(documents)
            checks = pa.array([row.tobytes() for row in found.astype(np.uint8)], pa.binary(BINS))
            bands = [pa.array(column) for column in np.ascontiguousarray(band_hashes(found).T)]
            writer.write_batch(pa.record_batch([*bands, checks], schema=SCHEMA))
            rows += len(documents)
    return rows


def band_hashes(found: np.ndarray) -> np.ndarray:
    """uint64 [N, BANDS] of signatures: a hash of the bins of each band; 0, which links nothing, of an empty text."""
    pairs = found.astype(np.uint64).reshape(len(found), BANDS, BINS // BANDS // 2, 2)
    joined = (pairs[..., 0] << np.uint64(32)) | pairs[..., 1]
    key = np.full(joined.shape[:2], keyed.fold(_BAND_SEED)[0])
    for column in range(joined.shape[2]):
        key = keyed.scramble(key + joined[:, :, column])
    key[(found == _EMPTY).all(axis=1)] = 0
    return key


def link_band(urls: list[str], gone: np.ndarray, band: int, threshold: float) -> Links:
    """Similar documents that share a band: each with the first that shares it.

    urls: signatures of all units; gone: numbers of documents that are dropped already. A document's number counts the
    documents of all units in their order.
    """
    columns = [_column(url, BAND_NAMES[band]) for url in urls]
    offsets = np.cumsum([0, *map(len, columns)])
    hashes = np.concatenate(columns) if columns else np.empty(0, np.uint64)
    del columns
    hashes[gone] = 0
    numbers = np.flatnonzero(hashes)
    again, first = repeats(hashes[numbers])
    pairs = Links(numbers[again], numbers[first])
    del hashes, numbers
    involved = np.unique(np.concatenate(pairs))
    checks = _checks(urls, offsets, involved)
    alike = np.empty(len(pairs.later), bool)
    for begin in range(0, len(alike), _PAIRS):
        some = slice(begin, begin + _PAIRS)
        later, earlier = (checks[np.searchsorted(involved, side[some])] for side in pairs)
        alike[some] = similarity(later, earlier) >= threshold
    return Links(pairs.later[alike], pairs.earlier[alike])


def repeats(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places of the values that stood before, the first place of each): two arrays of equal length.

    values  [7 3 7 5 3 7]   places that repeat  [4 2 5]   their first places  [1 0 0]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    again = np.append(False, ordered[1:] == ordered[:-1])[: len(values)]
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(values))))
    return order[again], order[first[again]]


def first_of_each(links: Links) -> tuple[np.ndarray, np.ndarray]:
    """(number of every linked document but the first of its group, number of that first), ascending.

    A group is what links connect, over any number of other documents.
    """
    from scipy.sparse import coo_array  # takes 0.2 s: for those who drop near duplicates alone
    from scipy.sparse.csgraph import connected_components

    nodes, places = np.unique(np.concatenate(links), return_inverse=True)
    later, earlier = places.reshape(2, -1)
    graph = coo_array((np.ones(len(later), bool), (later, earlier)), shape=(len(nodes), len(nodes)))
    _, group = connected_components(graph, directed=False)
    first = np.unique(group, return_index=True)[1][group]  # the lowest node of each node's group: nodes ascend
    drop = first != np.arange(len(nodes))
    return nodes[drop], nodes[first[drop]]


def _write_drops(numbers: np.ndarray, kept: np.ndarray, units: list[Unit], text_url: str, out_url: str) -> None:
    """Write the documents with these ascending numbers, a file per bucket. kept: numbers of what each is similar to."""
    if len(numbers) == 0:
        return
    originals = np.unique(kept)
    ids = dropped.documents_at(units, text_url, originals)["id"].to_pylist()
    details = [f"of {ids[place].hex()}" for place in np.searchsorted(originals, kept)]
    table = dropped.documents_at(units, text_url, numbers)
    buckets = table["bucket"].to_numpy()
    for bucket in np.unique(buckets).tolist():
        rows = np.flatnonzero(buckets == bucket)
        url = storage.join(out_url, f"near-{bucket:02d}.parquet")
        reasons: list[str | None] = ["near_duplicate"] * len(rows)
        dropped.write_drops(table.take(pa.array(rows)), reasons, [details[row] for row in rows], url)


def _densified(found: np.ndarray) -> np.ndarray:
    """Empty bins [N, BINS] take the value of another one, the same for every text that has a value there.

    bin                   0  1  2  3
    found                 8  -  -  5
    donors, attempt 0     1  3  1  2     bin 1 takes 5; bin 2 asks bin 1, which had nothing
    donors, attempt 1     2  0  0  1     bin 2 takes 8
    dense                 8  5  8  5

    Very short texts still lack some bins after 64 attempts: those take the least of all values, hashed for the bin.
    """
    dense = found.copy()
    places = np.flatnonzero((found == _EMPTY) & (found != _EMPTY).any(axis=1, keepdims=True))
    for donors in _donors():
        bins = places & (BINS - 1)
        values = found.reshape(-1)[places - bins + donors[bins]]
        dense.reshape(-1)[places] = values
        places = places[values == _EMPTY]
    if len(places):
        rows, which = np.unique(places // BINS, return_inverse=True)
        full = np.sort(found[rows], axis=1)
        full = full[:, (full != _EMPTY).any(axis=0)][which]
        salts = keyed.fold(_BAND_SEED, np.arange(BINS))[places & (BINS - 1), None]
        hashed = keyed.scramble(full + salts) >> np.uint64(33)
        dense.reshape(-1)[places] = np.where(full == _EMPTY, np.uint64(_EMPTY), hashed).min(axis=1)
    return dense


@lru_cache(maxsize=1)
def _donors() -> np.ndarray:
    """A random bin for each bin, [64 attempts, BINS]."""
    return keyed.below(keyed.bits(np.arange(64, dtype=np.uint64), BINS, stream=_BAND_SEED), BINS)


def _checks(urls: list[str], offsets: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """uint8 [N, BINS]: the signatures' lowest bytes of these documents (ascending), from the files that hold them."""
    found = np.empty((len(numbers), BINS), np.uint8)
    for url, (first, last) in zip(urls, itertools.pairwise(offsets), strict=True):
        own = slice(*np.searchsorted(numbers, (first, last)))  # those of this file
        if own.start < own.stop:
            column = _read(url, "check").combine_chunks()
            checks = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, BINS)[column.offset :]
            found[own] = checks[numbers[own] - first]
    return found


def _column(url: str, name: str) -> np.ndarray:
    return _read(url, name).to_numpy()


def _read(url: str, name: str) -> pa.ChunkedArray:
    return parquet.read_table(url, [name])[name]
