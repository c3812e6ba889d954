"""BatchPlan: which rows belong to which step, a pure keyed permutation of the store.

The order has two levels: row groups are permuted, then the rows within a window of consecutive (permuted) row groups.
So a row group is read and decoded once per epoch, memory is bounded by the window, and a resume reads one window; a
flat permutation of rows would read 100 to 1,000 times as much from Parquet. Batches run across epoch borders and
nothing is dropped. Cost of an epoch's order: one hash per row group; of a window: one hash per row.

    position 0 1 2 3 ...              the run's rows in order; position p lies in epoch p // rows
    micro-batch i                     positions i * b .. (i + 1) * b
    step k                            micro-batches k * M .. (k + 1) * M; rank r of W takes every W-th from r on

M does not depend on W, so the examples of a step are the same for any number of workers. In a mix of stores position p
belongs to the member that a fixed pattern of the weights gives it, and each member goes through epochs of its own.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pipelines import keyed

_GROUPS, _ROWS = 201, 202  # streams of draws
_PATTERN = 1000  # positions: weights count to a thousandth
_CACHED = 64  # orders: of two windows of each store of a mix


class RowPlaces(NamedTuple):
    """Where rows of the run lie: epoch, row group of the split and row within it, each [n]."""

    epoch: np.ndarray
    group: np.ndarray
    row: np.ndarray


class Part(NamedTuple):
    """A store of a mix: its row groups, which are consecutive, and its share of the rows of a run."""

    groups: int
    weight: float


@dataclass(frozen=True)
class BatchPlan:
    """group_rows: rows of each row group of the split; micro_rows: rows of a micro-batch (b); micro_batches: of a step
    (M); parts: the stores of a mix, none of a single store.
    """

    group_rows: tuple[int, ...]
    seed: int
    micro_rows: int
    micro_batches: int
    window: int = 8
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if min(self.micro_rows, self.micro_batches, self.window) < 1 or sum(self.group_rows) < 1:
            raise ValueError(f"a plan needs rows and sizes of at least 1, got {self}")

    @property
    def epoch_rows(self) -> int:
        return sum(self.group_rows)

    @property
    def step_rows(self) -> int:
        return self.micro_rows * self.micro_batches

    def micro_batch(self, step: int, index: int) -> RowPlaces:
        """Rows of micro-batch `index` (0 .. M-1) of `step`: a function of the two alone."""
        first = (step * self.micro_batches + index) * self.micro_rows
        return self.places(first, self.micro_rows)

    def places(self, first: int, count: int) -> RowPlaces:
        """Rows at positions first .. first + count - 1 of the run."""
        return self._mixed_places(first, count) if self.parts else self._own_places(first, count)

    def position(self, epoch: int, group: int, row: int) -> int:
        """Where in the run this row comes in this epoch of its store: the inverse of `places`."""
        if not self.parts:
            windows = self._windows(epoch)
            index = int(np.flatnonzero(windows.groups == group)[0]) // self.window
            groups, rows = self._window_rows(epoch, index)
            before = int(windows.ends[index - 1]) if index else 0
            return epoch * self.epoch_rows + before + int(np.flatnonzero((groups == group) & (rows == row))[0])
        first = 0
        for member, part in enumerate(self.parts):
            if group < first + part.groups:
                own = self._alone(first, part).position(epoch, group - first, row)
                pattern, before = _pattern(tuple(part.weight for part in self.parts))
                turns, rest = divmod(own, int((pattern == member).sum()))
                return turns * len(pattern) + int(np.flatnonzero((pattern == member) & (before == rest))[0])
            first += part.groups
        raise IndexError(f"row group {group} of {first}")

    def _alone(self, first: int, part: Part) -> "BatchPlan":
        """The plan of one store of a mix, whose row groups begin at `first`."""
        return replace(self, group_rows=self.group_rows[first : first + part.groups], parts=())

    def _mixed_places(self, first: int, count: int) -> RowPlaces:
        pattern, before = _pattern(tuple(part.weight for part in self.parts))
        turn, place = np.divmod(np.arange(first, first + count), len(pattern))
        member, found = pattern[place], np.zeros((3, count), np.int64)
        start = 0
        for index, part in enumerate(self.parts):
            mine = np.flatnonzero(member == index)
            if len(mine):  # consecutive positions take consecutive rows of a member
                each = (pattern == index).sum()
                row = int(turn[mine[0]] * each + before[place[mine[0]]])
                epoch, group, rows = self._alone(start, part).places(row, len(mine))
                found[:, mine] = epoch, group + start, rows
            start += part.groups
        return RowPlaces(*found)

    def _own_places(self, first: int, count: int) -> RowPlaces:
        parts = []
        while count > 0:
            epoch, offset = divmod(first, self.epoch_rows)
            windows = self._windows(epoch)
            index = int(np.searchsorted(windows.ends, offset, side="right"))
            begin = int(windows.ends[index - 1]) if index else 0
            group, row = self._window_rows(epoch, index)
            taken = slice(offset - begin, min(offset - begin + count, len(group)))
            parts.append(RowPlaces(np.full(len(group[taken]), epoch), group[taken], row[taken]))
            first += len(group[taken])
            count -= len(group[taken])
        return RowPlaces(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _windows(self, epoch: int) -> "_Windows":
        return _epoch_windows(self.group_rows, self.seed, epoch, self.window)

    def _window_rows(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        return _window_order(self.group_rows, self.seed, epoch, self.window, index)


class _Windows(NamedTuple):
    groups: np.ndarray  # row groups in this epoch's order
    ends: np.ndarray  # rows up to the end of each window


@lru_cache(maxsize=_CACHED)
def _epoch_windows(group_rows: tuple[int, ...], seed: int, epoch: int, window: int) -> _Windows:
    rows = np.array(group_rows, np.int64)
    groups = _permutation(len(rows), keyed.fold(seed, epoch, _GROUPS))
    ends = np.cumsum(rows[groups])
    last = np.minimum(np.arange(window, len(rows) + window, window), len(rows)) - 1
    return _Windows(groups, ends[last])


@lru_cache(maxsize=_CACHED)
def _window_order(
    group_rows: tuple[int, ...], seed: int, epoch: int, window: int, index: int
) -> tuple[np.ndarray, np.ndarray]:
    members = _epoch_windows(group_rows, seed, epoch, window).groups[index * window : (index + 1) * window]
    rows = np.array([group_rows[g] for g in members], np.int64)
    group = np.repeat(members, rows)
    row = np.concatenate([np.arange(n) for n in rows])
    order = _permutation(len(group), keyed.fold(seed, epoch, _ROWS, index))
    return group[order], row[order]


@lru_cache(maxsize=_CACHED)
def _pattern(weights: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(member of each of _PATTERN positions, how many of that member come before it), spread evenly.

    Each position goes to the member that is furthest behind its share; one with any weight gets a position at least.
    """
    share = np.maximum(np.array(weights) / sum(weights), 1 / _PATTERN)
    share /= share.sum()
    given, member, before = np.zeros(len(share), np.int64), np.empty(_PATTERN, np.int64), np.empty(_PATTERN, np.int64)
    for position in range(_PATTERN):
        index = int(np.argmax(share * (position + 1) - given))
        member[position], before[position] = index, given[index]
        given[index] += 1
    return member, before


def _permutation(n: int, key: np.ndarray) -> np.ndarray:
    """A keyed permutation of n; ties (which 64-bit draws practically never have) fall back to the index."""
    return np.argsort(keyed.bits(key, n, stream=1)[0], kind="stable")
