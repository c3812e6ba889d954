"""Pack segments into rows of fixed width: best fit, longest first.

Rows are filled by the *expected* size of their segments once laid out, up to a reserve of six standard deviations of
the row's sum, since blanks are drawn again each epoch. About 1 us per segment. The reserve is what a mixture's spread
costs: on Wikipedia 8,192 positions are 98 % full for the token objective and about 92 % for token + sentence +
document. Packing keeps a segment whole and never crosses a shard, so shards build in parallel.
"""

import math

import numpy as np

from infra.errors import UserError

RESERVE_SIGMAS = 6.0


def pack(mean: np.ndarray, variance: np.ndarray, ids: np.ndarray, *, width: int) -> list[np.ndarray]:
    """Rows as arrays of segment indices.

    mean, variance: of each segment's size in positions once it is laid out [N]; ids [N] break ties, so that the result
    does not depend on the order of the segments. Raises UserError when a single segment may not fit.
    """
    if len(mean) == 0:
        return []
    needed = mean + RESERVE_SIGMAS * np.sqrt(variance)
    worst = math.ceil(needed.max())
    if worst > width:
        raise UserError(
            f"a segment may need {worst:,} positions once its blanks are laid out, and a row has {width:,}",
            try_=f"--data.row_width={2 ** math.ceil(math.log2(worst))} or more, or a smaller data.sequence_length",
        )
    sizes = np.ceil(mean).astype(np.int64)
    capacity = max(width - _reserve(mean, variance, width), int(sizes.max()))
    order = np.lexsort((ids, -sizes))
    rows = _best_fit(sizes[order].tolist(), capacity)
    return [order[row] for row in _within_reserve(rows, mean[order], variance[order], width)]


def _reserve(mean: np.ndarray, variance: np.ndarray, width: int) -> int:
    """Positions kept free in each row: six standard deviations of a row with the corpus's average variance."""
    return math.ceil(RESERVE_SIGMAS * math.sqrt(width * float(variance.sum() / mean.sum())))


def _best_fit(sizes: list[int], capacity: int) -> list[list[int]]:
    """Rows of indices into sizes (sorted, longest first). The fullest row that still has room takes the segment.

    `free` is a bit set over amounts of free space: shifting it by a size and taking the lowest bit finds the fullest
    row in about 0.3 us, where a search tree would cost several. Rows with 2, 5 and 6 free places and a segment of 4:

        free                    1 1 0 0 1 0 0     bits 6, 5, 2
        free >> 4                       1 1 0     rows with less room fall out; the lowest bit, 1, is the row with
                                                  1 + 4 = 5 free places, which has 1 left
    """
    rows: list[list[int]] = []
    with_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    free = 0
    for index, size in enumerate(sizes):
        candidates = free >> size
        if candidates:
            space = size + (candidates & -candidates).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                free &= ~(1 << space)
            rows[row].append(index)
        else:
            space, row = capacity, len(rows)
            rows.append([index])
        left = space - size
        with_space[left].append(row)
        free |= 1 << left
    return rows


def _within_reserve(rows: list[list[int]], mean: np.ndarray, variance: np.ndarray, width: int) -> list[np.ndarray]:
    """Rows that fit with six deviations to spare: one of more variance than the average gives up its smallest segments,
    which form new rows.
    """
    kept: list[np.ndarray] = []
    spill: list[int] = []

    def needs(row: list[int]) -> float:
        return float(mean[row].sum()) + RESERVE_SIGMAS * math.sqrt(float(variance[row].sum()))

    for row in rows:
        while len(row) > 1 and needs(row) > width:
            spill.append(row.pop())
        kept.append(np.array(row))
    open_row: list[int] = []
    for index in spill:
        if open_row and needs([*open_row, index]) > width:
            kept.append(np.array(open_row))
            open_row = []
        open_row.append(index)
    if open_row:
        kept.append(np.array(open_row))
    return kept
