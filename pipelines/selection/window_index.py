"""An index of windows of many entries, and the documents that share one with them.

An entry's run of RUN_BYTES bytes, case, punctuation and white space aside, is found wherever it stands in a document.
Every eighth window of 43 bytes of the entries is indexed, so each run of 50 is found, and some of 43 to 49:

    an entry    ................................................................
    indexed     |---------------- 43 bytes ---------------|
                        |---------------- 43 bytes ---------------|
                                |---------------- 43 bytes ---------------|
    a run          |------------------- 50 bytes -------------------|     50 = 43 + 8 - 1: it holds an indexed window

The index takes at most 2.5 bytes of memory per byte of the entries.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from infra.storage import parquet
from pipelines.selection.shingles import normalise, window_hashes

RUN_BYTES = 50
_STRIDE = 8
_WIDTH = RUN_BYTES - _STRIDE + 1
_FILTER_BITS = 32  # per window: so few windows of ordinary text pass that looking them up costs little
MOST_ENTRIES = 32  # that a window names: a phrase of all entries of a set would name all of them in each document
_SCHEMA = pa.schema([("hash", pa.uint64()), ("entry", pa.int32())])


class WindowIndex(NamedTuple):
    """Windows of all entries: ascending hashes, uint64 [W], the number of the entry of each, int32 [W], and a bitmap.

    The bitmap has a bit for every value of a hash's highest bits, set where a window has them. Of 2**10 bits:

        hash      1011010110......   bits 726, which is bit 6 of byte 90
        bitmap    [byte 0] ... [byte 90] ... [byte 127]
    """

    hashes: np.ndarray
    entries: np.ndarray
    bitmap: np.ndarray


def windows_of(entry: str) -> np.ndarray:
    """Hashes of the windows of an entry that are indexed: every eighth, and the last. None of one that is too short."""
    data = normalise(entry)
    if len(data) < _WIDTH:
        return np.empty(0, np.uint64)
    windows = np.concatenate([hashes for hashes, _ in window_hashes([data], _WIDTH)])
    return np.append(windows[::_STRIDE], windows[-1:])


def make_index(hashes: np.ndarray, entries: np.ndarray) -> WindowIndex:
    """The index of these windows, in any order; entries: the number of the entry of each."""
    order = np.lexsort((entries, hashes))
    hashes, entries = hashes[order], entries[order]
    new = np.append(True, (hashes[1:] != hashes[:-1]) | (entries[1:] != entries[:-1]))[: len(hashes)]
    hashes, entries = hashes[new], entries[new]
    few = np.arange(len(hashes)) - np.searchsorted(hashes, hashes) < MOST_ENTRIES
    hashes, entries = hashes[few], entries[few]
    bits = min(max((len(hashes) * _FILTER_BITS).bit_length(), 10), 30)
    places = hashes >> np.uint64(64 - bits)
    bitmap = np.zeros(1 << (bits - 3), np.uint8)
    np.bitwise_or.at(bitmap, (places >> np.uint64(3)).astype(np.int64), _bit(places))
    return WindowIndex(hashes, entries, bitmap)


def save_index(index: WindowIndex, url: str) -> None:
    """Write the index as Parquet."""
    parquet.write_table(url, pa.table([index.hashes, index.entries], schema=_SCHEMA))


@lru_cache(maxsize=1)
def load_index(url: str) -> WindowIndex:
    """An index that `save_index` wrote. Read once per process: its name follows from its content."""
    table = parquet.read_table(url)
    return make_index(table["hash"].to_numpy(), table["entry"].to_numpy())


def find_shared(documents: list[str], index: WindowIndex) -> tuple[np.ndarray, np.ndarray]:
    """(document, entry) of every pair that shares a run, by their numbers, ascending: two arrays int64 [N]."""
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
