"""Lay out GLM examples: the one place that knows `[sop]`, `[eop]` and both position ids.

A segment with blanks becomes its *context* (the text with one mask per blank, seen by everyone), followed by *pieces*
(each blank's tokens behind a `[sop]`, written from left to right). Du et al. (ACL 2022), section 2.1; positions count
from 0, as in the authors' code.

    text      x0 x1 x2 x3 x4 x5          blanks, in the order of prediction: (4, 6) then (2, 3)
    tokens    x0 x1 M  x3 M  | sop x4 x5  | sop x2
    targets   .  .  .  .  .  | x4  x5 eop | x2  eop
    position  0  1  2  3  4  | 4   4  4   | 2   2        place of the blank's mask in the context
    block     0  0  0  0  0  | 1   2  3   | 1   2        place inside the blank

A segment of n tokens with k blanks takes n + 2k positions, whatever the blanks are. `expand` lays out a whole ragged
batch, `layout` one segment. Numpy only: Ray Data workers import this module.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from glm_model.ids import as_ids

IntArray = np.ndarray


@dataclass(frozen=True, slots=True)
class Marks:
    """The token ids that the layout writes. `pad` is also the end-of-text token."""

    sop: int
    eop: int
    pad: int


@dataclass(slots=True)
class Example:
    """One segment (all arrays int64, shape [T]) or a batch of packed rows ([B, L]).

    `targets` are 0 where `loss_mask` is 0. `segment_ids` is the segment's index in its row and -1 on padding;
    `context_end[i]` is the row index one past the context of position i's segment. `objective_ids` is the index of the
    segment's objective in the run's mixture. On padding tokens = pad, segment_ids = -1, and the rest is 0.
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

    def slice_rows(self, start: int, stop: int) -> "Example":
        """The rows start .. stop - 1 of a batch, as views."""
        return Example(*(array[start:stop] for array in self.arrays().values()))


class Sentinels(NamedTuple):
    """The ablation in which each blank has a mask [S] and a `[sop]` [S] of its own, instead of a common one, and all
    pieces have one position, instead of their mask's place.
    """

    mask_ids: IntArray
    sop_ids: IntArray
    position: int


class Ragged(NamedTuple):
    """A batch of segments and their blanks.

    tokens [T] and offsets [N+1] hold the segments; spans [S, 2] are half-open `(start, end)` relative to their segment,
    in the order of prediction; span_offsets [N+1]; mask_ids [N] is the mask token, objective_ids [N] the objective of
    each segment. For ablations: `sentinels`, and `piece_inputs` [P], which the model reads in place of the P blanked
    tokens (in the order of prediction) while it predicts them.
    """

    tokens: IntArray
    offsets: IntArray
    spans: IntArray
    span_offsets: IntArray
    mask_ids: IntArray
    objective_ids: IntArray
    sentinels: Sentinels | None = None
    piece_inputs: IntArray | None = None


class Packed(NamedTuple):
    """Rows that are still to be laid out, by the host or by the device that trains: the arguments of `expand`."""

    batch: Ragged
    row_offsets: IntArray
    width: int
    marks: Marks

    def expand(self) -> Example:
        return expand(self.batch, self.row_offsets, width=self.width, marks=self.marks)


def layout(tokens: IntArray, spans: IntArray, *, mask: int, marks: Marks) -> Example:
    """The example of one segment: tokens [n], spans [k, 2] in the order of prediction -> arrays [n + 2k]. Raises
    ValueError when a span is empty, out of range or overlaps another.
    """
    tokens, spans = np.asarray(tokens), np.asarray(spans)
    if tokens.ndim != 1 or any(array.size and array.dtype.kind not in "iu" for array in (tokens, spans)):
        raise ValueError(
            "expected whole numbers: tokens [n], the ids of one segment, and spans [k, 2], got "
            f"{tokens.dtype} {list(tokens.shape)} and {spans.dtype} {list(spans.shape)}"
        )
    spans = spans.astype(np.int64).reshape(-1, 2)
    ends, span_ends = np.array([0, len(tokens)]), np.array([0, len(spans)])
    batch = Ragged(tokens, ends, spans, span_ends, np.array([mask]), np.array([0]))
    check_spans(batch)
    rows = expand(batch, np.array([0, 1]), width=len(tokens) + 2 * len(spans), marks=marks)
    return Example(**{name: array[0] for name, array in rows.arrays().items()})


def restore(example: Example) -> IntArray:
    """The segment that `layout` was given: its inverse, for one example without padding and sentinels.

    A context position is a blank where a piece points to it, not where it holds a mask's id: text may hold that id too.
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
    """Raise ValueError naming the first span that is empty, out of range or overlaps another. Their order is free."""
    segment = np.repeat(np.arange(len(batch.offsets) - 1), np.diff(batch.span_offsets))
    length = np.diff(batch.offsets)[segment]
    start, end = batch.spans[:, 0], batch.spans[:, 1]
    for bad, why in ((start >= end, "is empty"), ((start < 0) | (end > length), "is out of range")):
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"span {tuple(batch.spans[i].tolist())} of segment {segment[i]} {why}: the segment has {length[i]} "
                "tokens. Spans are half-open (start, end) with 0 <= start < end <= length"
            )
    order = np.lexsort((start, segment))
    clash = (segment[order][1:] == segment[order][:-1]) & (start[order][1:] < end[order][:-1])
    if clash.any():
        i = int(np.flatnonzero(clash)[0])
        first, second = batch.spans[order[i]].tolist(), batch.spans[order[i + 1]].tolist()
        where = f"spans {tuple(first)} and {tuple(second)} of segment {segment[order[i]]}"
        raise ValueError(f"{where} overlap: each token may be blanked once")


def expanded_lengths(offsets: IntArray, span_offsets: IntArray) -> IntArray:
    """Positions that each segment takes when laid out: n + 2k, [N]."""
    return np.diff(offsets) + 2 * np.diff(span_offsets)


def expand(batch: Ragged, row_offsets: IntArray, *, width: int, marks: Marks) -> Example:
    """Lay out a ragged batch as packed rows [B, width]; row r holds segments row_offsets[r] .. row_offsets[r + 1] - 1.

    No Python loop over segments: about 7 us for one of 512 tokens and 25 blanks (`benchmarks/objective.py`). Raises
    ValueError when a row's segments do not fit in width. Spans are trusted; `check_spans` checks them.
    """
    num_segments, num_rows = len(batch.offsets) - 1, len(row_offsets) - 1
    sizes = expanded_lengths(batch.offsets, batch.span_offsets)
    padding = width - np.diff(np.concatenate(([0], np.cumsum(sizes)))[row_offsets])
    check_fit(padding, width)
    row = np.repeat(np.arange(num_rows), np.diff(row_offsets))  # of each segment
    blanks = _blanks(batch)
    source, begin, head = _runs(batch, blanks, row, row_offsets, padding)
    spread = _spreader(sizes, padding, row, row_offsets)
    tokens = batch.tokens.astype(np.int64).take(source, mode="clip") if num_segments else np.empty_like(source)
    positions = np.arange(num_rows * width)
    positions -= spread(begin, 0)
    targets, block, loss = (np.zeros(num_rows * width, np.int64) for _ in range(3))
    segment_ids = spread(np.arange(num_segments) - row_offsets[:-1][row], -1)
    context_end = spread(begin - row * width + blanks.context, 0)
    objective_ids = spread(batch.objective_ids, 0)
    flat = Example(tokens, targets, positions, block, loss, segment_ids, context_end, objective_ids)
    _write_pieces(flat, batch, blanks, head, marks)
    mask_ids = batch.sentinels.mask_ids if batch.sentinels else batch.mask_ids[blanks.segment]
    tokens[begin[blanks.segment] + blanks.place] = mask_ids
    for end, unused in zip(np.arange(1, num_rows + 1) * width, padding.tolist(), strict=True):
        tokens[end - unused : end] = marks.pad
        positions[end - unused : end] = 0
    return Example(*(array.reshape(num_rows, width) for array in flat.arrays().values()))


def _spreader(sizes: IntArray, padding: IntArray, row: IntArray, row_offsets: IntArray) -> Callable[..., IntArray]:
    """The function that repeats a value of each segment over the segment's positions, and one over all padding. Two
    rows of two segments and one: | segment 0 | segment 1 | padding 0 | segment 2 | padding 1 |
    """
    segments, pads = np.arange(len(sizes)) + row, np.arange(len(padding)) + row_offsets[1:]
    repeats = np.empty(len(sizes) + len(padding), np.int64)
    repeats[segments], repeats[pads] = sizes, padding

    def spread(values: IntArray, where_padded: int) -> IntArray:
        column = np.full(len(repeats), where_padded, np.int64)
        column[segments] = values
        return np.repeat(column, repeats)

    return spread


def _write_pieces(flat: Example, batch: Ragged, blanks: "_Blanks", head: IntArray, marks: Marks) -> None:
    """Write the pieces, from the positions `head` on: [sop] and the blank's tokens in, its tokens and [eop] out."""
    sentinels = batch.sentinels
    slots = ranges(head, blanks.size + 1)
    flat.position_ids[slots] = sentinels.position if sentinels else np.repeat(blanks.place, blanks.size + 1)
    flat.block_position_ids[slots] = ranges(np.ones(len(head), np.int64), blanks.size + 1)
    flat.loss_mask[slots] = 1
    flat.targets[slots[:-1]] = flat.tokens[slots[1:]]  # the next input; at a piece's end [eop] takes its place
    flat.targets[head + blanks.size] = marks.eop
    if batch.piece_inputs is not None:
        flat.tokens[ranges(head + 1, blanks.size)] = batch.piece_inputs
    flat.tokens[head] = sentinels.sop_ids if sentinels else marks.sop


class _Blanks(NamedTuple):
    """Per blank, in the order of prediction: segment [S], first token in the batch [S], tokens [S], place of its mask
    in the context [S]; `order` [S] sorts them as they stand in the text. context [N]: positions of each context.
    """

    segment: IntArray
    start: IntArray
    size: IntArray
    place: IntArray
    order: IntArray
    context: IntArray


def _blanks(batch: Ragged) -> _Blanks:
    counts, lengths = np.diff(batch.span_offsets), np.diff(batch.offsets)
    segment = np.repeat(np.arange(len(counts)), counts)
    start = batch.spans[:, 0] + batch.offsets[segment]
    size = batch.spans[:, 1] - batch.spans[:, 0]
    order = np.argsort(start)
    # How many tokens the contexts lack before each blank: of a blank of `size` tokens one is left, its mask.
    lacks = np.concatenate(([0], np.cumsum(size[order] - 1)))
    lacks_before = lacks[batch.span_offsets[:-1]]
    place = np.empty(len(start), np.int64)
    place[order] = batch.spans[order, 0] - (lacks[:-1] - lacks_before[segment])
    return _Blanks(segment, start, size, place, order, lengths - (lacks[batch.span_offsets[1:]] - lacks_before))


def _runs(
    batch: Ragged, blanks: _Blanks, row: IntArray, row_offsets: IntArray, padding: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """(source token of every position of the rows, first position of every segment, first of every piece).

    The rows are runs of consecutive tokens. A segment with k blanks has k + 1 runs of context and k pieces: a run of
    context reaches to the first token of a blank, whose place the mask takes; a piece begins one token early, at the
    place of its `[sop]`. Padding is a run too. The example at the top is

        context  x0 .. x2 | x3 .. x4 | (empty)      pieces  x3 .. x5 | x1 .. x2
                       M          M                         sop        sop
    """
    n, counts = len(row), np.diff(batch.span_offsets)
    base = np.arange(n) + 2 * batch.span_offsets[:-1] + row  # a segment's first run
    pads = np.arange(len(padding)) + row_offsets[1:] + 2 * batch.span_offsets[row_offsets[1:]]
    source, stop = np.zeros((2, n + 2 * len(blanks.start) + len(padding)), np.int64)
    first, size = blanks.start[blanks.order], blanks.size[blanks.order]
    upto = base[blanks.segment] + np.arange(len(first)) - batch.span_offsets[blanks.segment]
    source[base], source[upto + 1] = batch.offsets[:-1], first + size
    stop[upto], stop[base + counts] = first + 1, batch.offsets[1:]
    pieces = upto + counts[blanks.segment] + 1
    source[pieces], stop[pieces] = blanks.start - 1, blanks.start + blanks.size
    stop[pads] = padding
    sizes = stop - source
    begin = np.cumsum(sizes) - sizes
    index = np.repeat(source - begin, sizes)
    index += np.arange(len(index))
    return index, begin[base], begin[pieces]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A context to write pieces for: its tokens [n], and the positions of its masks [k] from left to right."""

    tokens: IntArray
    mask_positions: IntArray


def prompt(tokens: IntArray, *, masks: tuple[int, ...]) -> Prompt:
    """A context whose masks are already in place (a cloze question, a text to fill, a source to summarise).

    masks: the ids that count as a mask. Raises ValueError when the context has none, and when tokens are not ids.
    """
    tokens = as_ids(tokens, "tokens")
    mask_positions = np.flatnonzero((tokens[:, None] == np.asarray(masks)).any(1))  # isin takes four times as long
    if len(mask_positions) == 0:
        raise ValueError("the text has no mask, so there is nothing to fill. Put [MASK] where the model should write")
    return Prompt(tokens, mask_positions)


def layout_answers(prompt: Prompt, answers: list[IntArray], *, marks: Marks, order: IntArray | None = None) -> Example:
    """The example in which given answers fill the masks of a prompt: a cloze or seq2seq target, a text to be scored.

    answers: tokens of each mask, from left to right, without `[eop]`. order [k]: the masks in the order in which they
    are predicted; default from left to right. Raises ValueError when an answer is missing or empty.
    """
    masks = prompt.mask_positions
    if len(answers) != len(masks):
        raise ValueError(f"give one answer per mask, from left to right (answers: {len(answers)}, masks: {len(masks)})")
    answers = [as_ids(answer, f"the answer of mask {index}") for index, answer in enumerate(answers)]
    sizes = np.array([len(answer) for answer in answers], np.int64)
    if not sizes.all():
        raise ValueError(f"the answer of mask {int(np.argmin(sizes))} is empty: it needs at least one token")
    text, begin = [], 0
    for place, answer in zip(masks.tolist(), answers, strict=True):
        text += [prompt.tokens[begin:place], answer]
        begin = place + 1
    text.append(prompt.tokens[begin:])
    start = masks + np.cumsum(sizes - 1) - (sizes - 1)
    spans = np.stack((start, start + sizes), axis=1)
    example = layout(np.concatenate(text), spans if order is None else spans[order], mask=0, marks=marks)
    example.tokens[masks] = prompt.tokens[masks]  # `layout` writes one kind of mask; a prompt may have several
    return example


def context_positions(length: int) -> tuple[IntArray, IntArray]:
    """(position_ids, block_position_ids), each [length], of a context."""
    return np.arange(length, dtype=np.int64), np.zeros(length, np.int64)


def piece_positions(mask_position: int, first: int, count: int) -> tuple[IntArray, IntArray]:
    """(position_ids, block_position_ids), each [count], of a piece's inputs from number `first` on; `[sop]` is 1."""
    return np.full(count, mask_position, np.int64), np.arange(first, first + count, dtype=np.int64)


def ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """arange(start, start + size) of every pair, one after the other; both int64 [K]."""
    shift = starts - (np.cumsum(sizes) - sizes)
    return np.repeat(shift, sizes) + np.arange(int(sizes.sum()))


def check_fit(padding: IntArray, width: int) -> None:
    """Raise ValueError when the padding [B] of a row, what its segments leave of width, is negative."""
    if len(padding) and int(padding.min()) < 0:
        worst = int(np.argmin(padding))
        needs = f"row {worst} needs {width - padding[worst]} positions and has {width}"
        raise ValueError(f"{needs}: use a wider row, or fewer segments in it")
