"""Lay out GLM examples: the one place that knows `[sop]`, `[eop]` and both position ids.

A segment with blanks becomes *context* (the text with one mask per blank, seen by everyone) followed by *pieces* (each
blank's tokens behind a `[sop]`, written left to right). Du et al. (ACL 2022), section 2.1; the authors number positions
from 0 and so do we.

    text      x0 x1 x2 x3 x4 x5          blanks, in the order of prediction: (4, 6) then (2, 3)
    tokens    x0 x1 M  x3 M  | sop x4 x5  | sop x2
    targets   .  .  .  .  .  | x4  x5 eop | x2  eop
    position  0  1  2  3  4  | 4   4  4   | 2   2        place of the blank's mask in the context
    block     0  0  0  0  0  | 1   2  3   | 1   2        place inside the blank

A segment of n tokens with k blanks takes n + 2k positions, whatever the blanks are. `expand` does a whole ragged batch
in a few dozen numpy passes ; `layout` is its form
for one segment. Numpy only: Ray Data workers import this module.
"""

import itertools
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

IntArray = np.ndarray


@dataclass(frozen=True, slots=True)
class Marks:
    """Token ids that the layout writes. `pad` is also the end-of-text token."""

    sop: int
    eop: int
    pad: int


@dataclass(slots=True)
class Example:
    """One segment (all arrays int64, shape [T]) or a batch of packed rows ([B, L]).

    `targets` are 0 where `loss_mask` is 0. `segment_ids` is the segment's index in its row and -1 on padding;
    `context_end[i]` is the row index one past the context of token i's segment. `objective_ids` is the index of the
    segment's objective in the run's mixture. On padding tokens = pad, segment_ids = -1 and all else is 0.
    """

    tokens: IntArray
    targets: IntArray
    position_ids: IntArray
    block_position_ids: IntArray
    loss_mask: IntArray
    segment_ids: IntArray
    context_end: IntArray
    objective_ids: IntArray

    def arrays(self) -> dict[str, IntArray]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Sentinels(NamedTuple):
    """The ablation in which a blank is known by its number: its own mask [S] and `[sop]` [S] instead of a common one,
    and one first position for all pieces instead of their mask's place.
    """

    mask_ids: IntArray
    sop_ids: IntArray
    position: int


class Ragged(NamedTuple):
    """A batch of segments and their blanks.

    tokens [T] and offsets [N+1] hold the segments; spans [S, 2] are half-open `(start, end)` relative to their segment,
    in the order of prediction; span_offsets [N+1]; mask_ids [N] is the mask token, objective_ids [N] the objective of
    each segment. Ablations: `sentinels`, and `piece_inputs` [P], what the model reads in place of the P blanked tokens
    (in the order of prediction) while it predicts them.
    """

    tokens: IntArray
    offsets: IntArray
    spans: IntArray
    span_offsets: IntArray
    mask_ids: IntArray
    objective_ids: IntArray
    sentinels: Sentinels | None = None
    piece_inputs: IntArray | None = None


def layout(tokens: IntArray, spans: IntArray, *, mask: int, marks: Marks) -> Example:
    """The example of one segment: tokens [n], spans [k, 2] in the order of prediction -> arrays [n + 2k].

    Raises ValueError when a span is empty, out of range or overlaps another.
    """
    tokens = np.asarray(tokens)
    spans = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    batch = Ragged(
        tokens,
        np.array([0, len(tokens)]),
        spans,
        np.array([0, len(spans)]),
        np.array([mask]),
        np.array([0]),
    )
    check_spans(batch)
    rows = expand(batch, np.array([0, 1]), width=len(tokens) + 2 * len(spans), marks=marks)
    return Example(**{name: array[0] for name, array in rows.arrays().items()})


def restore(example: Example) -> IntArray:
    """The segment that `layout` was given: its inverse, for one unpadded example (without sentinels).

    A context position is a blank when a piece points to it, not when it holds a mask's id: text may hold that id too.
    """
    end = int(example.context_end[0])
    piece_starts = end + np.flatnonzero(example.block_position_ids[end:] == 1)
    bounds = np.append(piece_starts, len(example.tokens))
    content = {
        int(example.position_ids[start]): example.targets[start : stop - 1]
        for start, stop in itertools.pairwise(bounds)
    }
    parts = [content.get(place, example.tokens[place : place + 1]) for place in range(end)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def check_spans(batch: Ragged) -> None:
    """Raise ValueError naming the first span that is empty, out of range or overlaps another. Any order is valid."""
    segment = np.repeat(np.arange(len(batch.offsets) - 1), np.diff(batch.span_offsets))
    length = np.diff(batch.offsets)[segment]
    start, end = batch.spans[:, 0], batch.spans[:, 1]
    for bad, why in (
        (start >= end, "is empty"),
        ((start < 0) | (end > length), "is out of range"),
    ):
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"span {tuple(batch.spans[i].tolist())} of segment {segment[i]} {why}: the segment has "
                f"{length[i]} tokens. "
                "Spans are half-open (start, end) with 0 <= start < end <= length"
            )
    order = np.lexsort((start, segment))
    clash = (segment[order][1:] == segment[order][:-1]) & (start[order][1:] < end[order][:-1])
    if clash.any():
        i = int(np.flatnonzero(clash)[0])
        first, second = batch.spans[order[i]].tolist(), batch.spans[order[i + 1]].tolist()
        raise ValueError(
            f"spans {tuple(first)} and {tuple(second)} of segment {segment[order[i]]} overlap: each token may be "
            "blanked once"
        )


def expanded_lengths(offsets: IntArray, span_offsets: IntArray) -> IntArray:
    """Positions that each segment takes once laid out: n + 2k, [N]."""
    return np.diff(offsets) + 2 * np.diff(span_offsets)


def expand(batch: Ragged, row_offsets: IntArray, *, width: int, marks: Marks) -> Example:
    """Lay out a ragged batch as packed rows [B, width]; row r holds segments row_offsets[r] .. row_offsets[r + 1].

    Every intermediate is a flat array over tokens, blanks or blanked tokens: no Python loop over segments.
    Raises ValueError when a row's segments do not fit in width. Spans are trusted (`check_spans` checks them).
    """
    tokens, offsets, spans, span_offsets, mask_ids, objective_ids, sentinels, piece_inputs = batch
    n, num_rows = len(offsets) - 1, len(row_offsets) - 1
    sizes = expanded_lengths(offsets, span_offsets)
    row = np.repeat(np.arange(num_rows), np.diff(row_offsets))
    before = np.cumsum(sizes) - sizes
    row_start = np.zeros(n, np.int64) if n == 0 else before[row_offsets[:-1][row]]
    column = before - row_start  # of a segment's first position in its row
    _check_fit(column + sizes, row, width)
    out = row * width + column  # flat index of a segment's first position

    # The context: every token outside the blanks, and a blank's first token, whose place the mask takes.
    segment_of_span = np.repeat(np.arange(n), np.diff(span_offsets))
    start = spans[:, 0] + offsets[segment_of_span]
    size = spans[:, 1] - spans[:, 0]
    change = np.zeros(len(tokens) + 1, np.int32)
    change[start] += 1  # blanks neither overlap nor are empty: no index occurs twice in either line
    change[start + size] -= 1
    keep = np.cumsum(change[:-1]) == 0
    keep[start] = True
    kept_before = np.concatenate(([0], np.cumsum(keep)))
    rank = kept_before[:-1] - np.repeat(kept_before[offsets[:-1]], np.diff(offsets))
    context_size = kept_before[offsets[1:]] - kept_before[offsets[:-1]]

    shape = num_rows * width
    result = Example(*(np.zeros(shape, np.int64) for _ in range(8)))
    result.tokens[:] = marks.pad
    result.segment_ids[:] = -1
    within = np.arange(n) - row_offsets[:-1][row] if n else np.zeros(0, np.int64)
    everywhere = ranges(out, sizes)
    result.segment_ids[everywhere] = np.repeat(within, sizes)
    result.context_end[everywhere] = np.repeat(column + context_size, sizes)
    result.objective_ids[everywhere] = np.repeat(objective_ids, sizes)

    source = np.flatnonzero(keep)
    place = rank[source]
    target = np.repeat(out, context_size) + place
    result.tokens[target] = tokens[source]
    result.position_ids[target] = place
    mask_place = rank[start]
    result.tokens[out[segment_of_span] + mask_place] = sentinels.mask_ids if sentinels else mask_ids[segment_of_span]

    # The pieces, in the order of prediction: [sop] and the blank's tokens in; the blank's tokens and [eop] out.
    used = np.cumsum(size + 1) - (size + 1)
    first_span = np.minimum(span_offsets[:-1], max(len(size) - 1, 0))
    used_in_segment = used - (used[first_span][segment_of_span] if len(size) else 0)
    piece = (out + context_size)[segment_of_span] + used_in_segment
    positions = ranges(piece, size + 1)
    result.position_ids[positions] = sentinels.position if sentinels else np.repeat(mask_place, size + 1)
    result.block_position_ids[positions] = ranges(np.ones(len(size), np.int64), size + 1)
    result.loss_mask[positions] = 1
    blanked = tokens[ranges(start, size)]
    slots = ranges(piece, size)
    result.targets[slots] = blanked
    result.targets[piece + size] = marks.eop
    result.tokens[slots + 1] = blanked if piece_inputs is None else piece_inputs
    result.tokens[piece] = sentinels.sop_ids if sentinels else marks.sop
    return Example(**{name: array.reshape(num_rows, width) for name, array in result.arrays().items()})


@dataclass(frozen=True, slots=True)
class Prompt:
    """A context to write pieces for: tokens [n], and the indices of its masks [k] from left to right."""

    tokens: IntArray
    mask_positions: IntArray


def prompt(tokens: IntArray, *, masks: tuple[int, ...]) -> Prompt:
    """A context whose masks are already in place (a cloze question, a text to fill, a source to summarise).

    `masks` are the ids that count as a mask. Raises ValueError when the text holds none.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    mask_positions = np.flatnonzero(np.isin(tokens, masks))
    if len(mask_positions) == 0:
        raise ValueError("the text has no mask, so there is nothing to fill. Put [MASK] where the model should write")
    return Prompt(tokens, mask_positions)


def context_positions(length: int) -> tuple[IntArray, IntArray]:
    """(position_ids, block_position_ids), each [length], of a context."""
    return np.arange(length, dtype=np.int64), np.zeros(length, np.int64)


def piece_positions(mask_position: int, first: int, count: int) -> tuple[IntArray, IntArray]:
    """(position_ids, block_position_ids), each [count], of a piece's inputs first .. first + count - 1, `[sop]` being
    1.
    """
    return np.full(count, mask_position, np.int64), np.arange(first, first + count, dtype=np.int64)


def ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """arange(start, start + size) of every pair, one after the other; both int64 [K]."""
    shift = starts - (np.cumsum(sizes) - sizes)
    return np.repeat(shift, sizes) + np.arange(int(sizes.sum()))


def _check_fit(ends: IntArray, row: IntArray, width: int) -> None:
    if len(ends) and int(ends.max()) > width:
        worst = int(np.argmax(ends))
        raise ValueError(
            f"row {row[worst]} needs {ends[worst]} positions and has {width}: use a wider row, or fewer segments in it"
        )
