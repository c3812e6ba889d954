"""BatchPlan: which rows belong to which step, a pure keyed permutation of the store.

The order has two levels: row groups are permuted, then the rows within a window of consecutive (permuted) row groups.

    row groups of an epoch     5   0   3 | 1   4   2          a permutation; windows of three
    rows of a window           3.1 5.0 0.2 0.0 5.1 3.0 ...    a permutation of their rows: group.row
    position                   0   1   2   3   4   5          in the run; position p lies in epoch p // rows

    micro-batch i              positions i * b .. (i + 1) * b
    step k                     micro-batches k * M .. (k + 1) * M; rank r of W takes every W-th from r on

So a row group is read and decoded once per epoch, memory is bounded by the window, and a resume reads one window; a
flat permutation of rows would read 100 to 1,000 times as much from Parquet. Batches run across epoch borders and
nothing is dropped. M does not depend on W, so the examples of a step are the same for any number of workers. In a mix
of stores a fixed pattern of the weights says which member a position belongs to, and each member goes through epochs of
its own.

Ordering an epoch costs one hash per row group and a sort; ordering a window costs the same for its rows. The plan keeps
the last orders, so a micro-batch costs the same for any number of row groups: 6 us, in a mix of two stores 30 (for
1,000 row groups and for 50,000).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from pipelines import keyed
from pipelines.store.format import Part

_GROUPS, _ROWS = 201, 202  # streams of draws
_PATTERN = 1000  # positions: weights count to a thousandth
_CACHED = 8  # orders that a plan keeps, of epochs and of windows: reading needs two of each


class RowPlaces(NamedTuple):
    """Where rows of the run lie: epoch, row group of the split and row within it, each [n]."""

    epoch: np.ndarray
    group: np.ndarray
    row: np.ndarray


@dataclass(frozen=True)
class BatchPlan:
    """Which rows belong to which step. A value: the orders that it keeps are neither compared nor pickled."""

    group_rows: tuple[int, ...]
    """Rows of each row group of the split."""
    seed: int
    micro_rows: int
    """Rows of a micro-batch (b)."""
    micro_batches: int
    """Micro-batches of a step (M)."""
    window: int = 8
    """Row groups among whose rows an order is drawn."""
    parts: tuple[Part, ...] = ()
    """The stores of a mix; empty for a single store."""

    def __post_init__(self) -> None:
        if min(self.micro_rows, self.micro_batches, self.window) < 1 or sum(self.group_rows) < 1:
            raise ValueError(f"a plan needs rows and sizes of at least 1, got {self}")

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
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
            windows = self._orders.windows(epoch)
            index = int(np.flatnonzero(windows.groups == group)[0]) // self.window
            groups, rows = self._orders.rows(epoch, index)
            before = int(windows.ends[index - 1]) if index else 0
            return epoch * self.epoch_rows + before + int(np.flatnonzero((groups == group) & (rows == row))[0])
        for member, (first, plan) in enumerate(self._members):
            if group < first + len(plan.group_rows):
                pattern = _pattern(tuple(part.weight for part in self.parts))
                places = np.flatnonzero(pattern.member == member)  # its k-th row of a turn has the k-th of these
                turns, rest = divmod(plan.position(epoch, group - first, row), len(places))
                return turns * _PATTERN + int(places[rest])
        raise IndexError(f"row group {group} of {len(self.group_rows)}")

    @cached_property
    def _members(self) -> "list[tuple[int, BatchPlan]]":
        """The first row group of each store of a mix, and the plan of that store alone."""
        ends = list(itertools.accumulate((part.groups for part in self.parts), initial=0))
        return [
            (first, replace(self, group_rows=self.group_rows[first:end], parts=()))
            for first, end in itertools.pairwise(ends)
        ]

    def _mixed_places(self, first: int, count: int) -> RowPlaces:
        """Positions of a member, in their order, take its rows one after the other, in the order of its own plan."""
        pattern = _pattern(tuple(part.weight for part in self.parts))
        turn, place = np.divmod(np.arange(first, first + count), _PATTERN)
        member, places = pattern.member[place], np.zeros((3, count), np.int64)
        for index, (start, plan) in enumerate(self._members):
            own = np.flatnonzero(member == index)
            if len(own):
                each = (pattern.member == index).sum()
                position = int(turn[own[0]] * each + pattern.before[place[own[0]]])
                epoch, group, row = plan.places(position, len(own))
                places[:, own] = epoch, group + start, row
        return RowPlaces(*places)

    def _own_places(self, first: int, count: int) -> RowPlaces:
        parts = []
        while count > 0:
            epoch, offset = divmod(first, self.epoch_rows)
            windows = self._orders.windows(epoch)
            index = int(np.searchsorted(windows.ends, offset, side="right"))
            begin = int(windows.ends[index - 1]) if index else 0
            group, row = self._orders.rows(epoch, index)
            taken = slice(offset - begin, min(offset - begin + count, len(group)))
            parts.append(RowPlaces(np.full(len(group[taken]), epoch), group[taken], row[taken]))
            first += len(group[taken])
            count -= len(group[taken])
        return RowPlaces(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    @cached_property
    def _orders(self) -> "_Orders":
        return _orders_of(self.group_rows, self.seed, self.window)


class _Windows(NamedTuple):
    """The windows of an epoch: its row groups in order [G], and the rows up to the end of each window."""

    groups: np.ndarray
    ends: np.ndarray


class _Orders(NamedTuple):
    """windows(epoch), and rows(epoch, window): row group and row within it of each row of the window, in order, [n]."""

    windows: Callable[[int], _Windows]
    rows: Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def _orders_of(group_rows: tuple[int, ...], seed: int, window: int) -> _Orders:
    """The orders of one store. The last ones are kept, by epoch and window.

    Functions of a closure, as a key that holds all row groups would be hashed at each look-up.
    """
    sizes = np.array(group_rows, np.int64)

    @lru_cache(maxsize=_CACHED)
    def windows(epoch: int) -> _Windows:
        groups = _permutation(len(sizes), keyed.fold(seed, epoch, _GROUPS))
        ends = np.cumsum(sizes[groups])
        last = np.minimum(np.arange(window, len(sizes) + window, window), len(sizes)) - 1
        return _Windows(groups, ends[last])

    @lru_cache(maxsize=_CACHED)
    def rows(epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        members = windows(epoch).groups[index * window : (index + 1) * window]
        group = np.repeat(members, sizes[members])
        row = np.concatenate([np.arange(n) for n in sizes[members]])
        order = _permutation(len(group), keyed.fold(seed, epoch, _ROWS, index))
        return group[order], row[order]

    return _Orders(windows, rows)


class _Pattern(NamedTuple):
    """The member of each of _PATTERN positions, and how many of the same member come before it, both [_PATTERN]."""

    member: np.ndarray
    before: np.ndarray


@lru_cache
def _pattern(weights: tuple[float, ...]) -> _Pattern:
    """Positions spread evenly over members by their weights, the same turn after turn.

        weights 3 : 1      member   0 0 1 0 | 0 0 1 0 | ...
                           before   0 1 0 2 | 3 4 1 5 | ...

    Each position goes to the member that is furthest behind its share; one with any weight gets a position at least.
    """
    share = np.maximum(np.array(weights) / sum(weights), 1 / _PATTERN)
    share /= share.sum()
    given, member, before = np.zeros(len(share), np.int64), np.empty(_PATTERN, np.int64), np.empty(_PATTERN, np.int64)
    for position in range(_PATTERN):
        index = int(np.argmax(share * (position + 1) - given))
        member[position], before[position] = index, given[index]
        given[index] += 1
    return _Pattern(member, before)


def _permutation(n: int, key: np.ndarray) -> np.ndarray:
    """A keyed permutation of n; ties (which 64-bit draws practically never have) fall back to the index."""
    return np.argsort(keyed.bits(key, n, stream=1)[0], kind="stable")
