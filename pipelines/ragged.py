"""Segments, rows and blanks of different lengths as flat arrays with offsets: take, slice, merge, concatenate.

    flat          [a b c | d | e f]     the values of all members, one after the other
    offsets       [0       3   4    6]  member i is flat[offsets[i]:offsets[i + 1]]

Rows are made of segments, segments of tokens, and each segment has its blanks:

    row_offsets   [0           2    3]  row 0 holds the segments 0 and 1, row 1 the segment 2
    offsets       [0       3   4    6]  segment 0 holds the tokens a b c
    span_offsets  [0       2   3    4]  segment 0 has two blanks
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glm_model.layout import ranges


@dataclass(frozen=True, slots=True)
class Segments:
    """N segments: flat tokens [T], offsets [N + 1], ids uint64 [N], UTF-8 bytes of their text num_bytes [N]."""

    tokens: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    num_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class RowBatch(Segments):
    """R rows of N whole segments; row_offsets [R + 1] into the segments."""

    row_offsets: np.ndarray


@dataclass(frozen=True, slots=True)
class Blanks:
    """Blanks of N segments: index of each one's objective in the mixture [N], spans [S, 2], span_offsets [N + 1].

    Spans are half-open (start, end), relative to their segment, in the order of prediction.
    """

    objective: np.ndarray
    spans: np.ndarray
    span_offsets: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each blank, [S]."""
        return self.spans[:, 1] - self.spans[:, 0]

    @property
    def counts(self) -> np.ndarray:
        """Blanks of each segment, [N]."""
        return np.diff(self.span_offsets)

    @property
    def tokens(self) -> np.ndarray:
        """Blanked tokens of each segment, [N]; each segment has a blank."""
        return np.add.reduceat(self.sizes, self.span_offsets[:-1]) if len(self.objective) else np.zeros(0, np.int64)


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Offsets [N + 1] of members of these sizes [N]."""
    return np.concatenate(([0], np.cumsum(sizes)))


def owners(offsets: np.ndarray) -> np.ndarray:
    """The member that each value belongs to [T]: 0 0 0 1 2 2 in the picture above."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def take(flat: np.ndarray, offsets: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of some members, in this order, and their offsets: [2, 0] gives e f a b c and 0 2 5 above."""
    starts = offsets[members]
    sizes = offsets[members + 1] - starts
    return flat[ranges(starts, sizes)], offsets_of(sizes)


def merge_spans(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `take`: spans [S, 2] and offsets [N + 1] of all segments out of those of disjoint parts of them.

    parts: (members, spans, offsets) each; together they have each of the `count` segments once.
    """
    if len(parts) == 1:  # it has all of them, in order
        return parts[0][1:]
    sizes = np.zeros(count, np.int64)
    for members, _, offsets in parts:
        sizes[members] = np.diff(offsets)
    merged = offsets_of(sizes)
    spans = np.empty((int(merged[-1]), 2), np.int64)
    for members, values, _ in parts:
        spans[ranges(merged[members], sizes[members])] = values
    return spans, merged


def take_segments(segments: Segments, members: np.ndarray) -> Segments:
    """Some of the segments, in this order."""
    tokens, offsets = take(segments.tokens, segments.offsets, members)
    return Segments(tokens, offsets, segments.ids[members], segments.num_bytes[members])


def take_rows(segments: Segments, rows: Sequence[np.ndarray]) -> RowBatch:
    """Rows of the segments with these numbers; at least one row."""
    taken = take_segments(segments, np.concatenate(rows))
    row_offsets = offsets_of(np.array([len(row) for row in rows]))
    return RowBatch(taken.tokens, taken.offsets, taken.ids, taken.num_bytes, row_offsets)


def slice_rows(rows: RowBatch, blanks: Blanks, start: int, stop: int) -> tuple[RowBatch, Blanks]:
    """The rows start .. stop - 1 and their blanks, as views."""
    first, last = int(rows.row_offsets[start]), int(rows.row_offsets[stop])
    begin, end = int(rows.offsets[first]), int(rows.offsets[last])
    span_begin, span_end = int(blanks.span_offsets[first]), int(blanks.span_offsets[last])
    taken = RowBatch(
        rows.tokens[begin:end],
        rows.offsets[first : last + 1] - begin,
        rows.ids[first:last],
        rows.num_bytes[first:last],
        rows.row_offsets[start : stop + 1] - first,
    )
    spans = blanks.spans[span_begin:span_end]
    return taken, Blanks(blanks.objective[first:last], spans, blanks.span_offsets[first : last + 1] - span_begin)


def concatenate_segments(parts: Sequence[Segments]) -> Segments:
    """The segments of several batches, one after the other; of no batch none."""
    if not parts:
        none = np.empty(0, np.int64)
        return Segments(np.empty(0, np.uint16), np.zeros(1, np.int64), none.astype(np.uint64), none)
    return Segments(
        np.concatenate([part.tokens for part in parts]),
        _join([part.offsets for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.num_bytes for part in parts]),
    )


def concatenate_rows(parts: Sequence[tuple[RowBatch, Blanks]]) -> tuple[RowBatch, Blanks]:
    """The rows of several batches and their blanks, one after the other; at least one batch."""
    segments = concatenate_segments([rows for rows, _ in parts])
    row_offsets = _join([rows.row_offsets for rows, _ in parts])
    rows = RowBatch(segments.tokens, segments.offsets, segments.ids, segments.num_bytes, row_offsets)
    return rows, Blanks(
        np.concatenate([blanks.objective for _, blanks in parts]),
        np.concatenate([blanks.spans for _, blanks in parts]),
        _join([blanks.span_offsets for _, blanks in parts]),
    )


def _join(offsets: list[np.ndarray]) -> np.ndarray:
    """Offsets of a concatenation of ragged arrays, each given by its own from 0."""
    return offsets_of(np.concatenate([np.diff(each) for each in offsets]))
