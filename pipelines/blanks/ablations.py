"""The paper's ablations that change what the model reads, and not which tokens are blanked (section 4.4 of the paper).

Each is a form of its own (`pipelines.blanks.form`). All draws are keyed by the segment and its blanks, so they are the
same wherever and with whatever they are made; another epoch draws others because its blanks are others.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from glm_model.layout import Example, Marks, Ragged, Sentinels, expand, ranges
from pipelines import keyed
from pipelines.blanks.form import Form, RowLayout, blanked_batch
from pipelines.ragged import Blanks, RowBatch, Segments, owners

NUM_SENTINELS = 127  # besides the plain mask; a segment of 512 tokens has 24 blanks, give or take 5
_NOISE, _KIND, _TOKEN = 1, 2, 3


def extra_tokens(*, sentinels: bool, noise: bool) -> int:
    """Ids behind the tokenizer's own that the model needs: a mask and a `[sop]` of each number, and one for noise."""
    return (2 * NUM_SENTINELS if sentinels else 0) + (1 if noise else 0)


@dataclass(frozen=True)
class AlteredInputs(Form):
    """GLM's form where the model reads other tokens at its blanks than the plain ones: sentinels, noise, or both."""

    sentinels: bool = False
    """Each blank has a mask and a `[sop]` of its own number, and all pieces one first position."""
    noise: float = 0.0
    """Share of the blanked tokens that the model cannot read while it predicts the next ones."""
    on_device: ClassVar[bool] = False

    def extra_surface(self, number: int) -> str:
        if not 0 <= number < self.extra_tokens:
            return super().extra_surface(number)
        if self.noise and number == self.extra_tokens - 1:
            return "[NOISE]"
        return f"[MASK {number // 2 + 1}]" if number % 2 == 0 else f"<|startofpiece {number // 2 + 1}|>"

    def lay_out(self, rows: RowBatch, blanks: Blanks, layout: RowLayout) -> Example:
        batch = blanked_batch(rows, blanks, layout.mask_ids)
        if self.sentinels:
            batch = batch._replace(sentinels=number_blanks(blanks.span_offsets, layout))
        if self.noise:
            hidden = keyed.uniform(_draws(rows, blanks, _NOISE)) < self.noise
            noise_id = layout.vocab_size + self.extra_tokens - 1
            batch = batch._replace(piece_inputs=np.where(hidden, noise_id, _blanked_tokens(rows, blanks)))
        return expand(batch, rows.row_offsets, width=layout.width, marks=layout.marks)


@dataclass(frozen=True)
class InPlace(Form):
    """Masked language modelling as BERT does it: tokens are replaced and predicted where they stand."""

    random_share: float = 0.1
    """Share of the blanked tokens that become a random token."""
    kept_share: float = 0.1
    """Share of the blanked tokens that stay; all others become the mask."""
    positions_per_blank: ClassVar[int] = 0
    targets_per_blank: ClassVar[int] = 0
    on_device: ClassVar[bool] = False

    def visible_pairs(self, segments: Segments, blanks: Blanks) -> np.ndarray:
        return np.diff(segments.offsets) ** 2

    def lay_out(self, rows: RowBatch, blanks: Blanks, layout: RowLayout) -> Example:
        kind = keyed.uniform(_draws(rows, blanks, _KIND))
        anything = keyed.below(_draws(rows, blanks, _TOKEN), layout.vocab_size)
        replaced = np.where(kind < self.kept_share + self.random_share, anything, layout.mask_ids[0])
        inputs = np.where(kind < self.kept_share, _blanked_tokens(rows, blanks), replaced)
        batch = blanked_batch(rows, blanks, layout.mask_ids)
        return expand_in_place(batch, inputs, rows.row_offsets, width=layout.width, marks=layout.marks)


def number_blanks(span_offsets: np.ndarray, layout: RowLayout) -> Sentinels:
    """Masks and `[sop]`s numbered in the order of prediction.

    The first blank of a segment has the plain ones, as in the authors' code, and all beyond the last number share it:

        blank     0      1      2     ..  127         128 ...
        mask      mask   V      V + 2 ..  V + 252     V + 252      V: ids of the tokenizer
        [sop]     sop    V + 1  V + 3 ..  V + 253     V + 253
    """
    number = ranges(np.zeros(len(span_offsets) - 1, np.int64), np.diff(span_offsets))
    pair = layout.vocab_size + 2 * (np.minimum(number, NUM_SENTINELS) - 1)
    masks, sops = np.where(number, pair, layout.mask_ids[0]), np.where(number, pair + 1, layout.marks.sop)
    return Sentinels(masks, sops, layout.sequence_length)


def expand_in_place(batch: Ragged, inputs: np.ndarray, row_offsets: np.ndarray, *, width: int, marks: Marks) -> Example:
    """Packed rows [B, width] of segments whose P blanked tokens, in the order of the spans, are read as `inputs` [P].

        text      x0 x1 x2 x3 x4          blanks (1, 2), (3, 4)
        tokens    x0 M  x2 M  x4          M: what `inputs` says
        targets   .  x1 .  x3 .
        position  0  1  2  3  4           the second position is 0

    Nothing is appended, and every token sees its whole segment (`context_end` is the segment's end).
    Raises ValueError when a row's segments do not fit in width.
    """
    n, num_rows = len(batch.offsets) - 1, len(row_offsets) - 1
    sizes = np.diff(batch.offsets)
    row = owners(row_offsets)
    column = batch.offsets[:-1] - batch.offsets[row_offsets[:-1]][row]
    if n and int((column + sizes).max()) > width:
        raise ValueError(f"a row needs {int((column + sizes).max())} positions and has {width}: use a wider row")
    begin = row * width + column

    shape = num_rows * width
    result = Example(*(np.zeros(shape, np.int64) for _ in range(8)))
    result.tokens[:] = marks.pad
    result.segment_ids[:] = -1
    everywhere = ranges(begin, sizes)
    result.tokens[everywhere] = batch.tokens
    result.position_ids[everywhere] = ranges(np.zeros(n, np.int64), sizes)
    result.segment_ids[everywhere] = np.repeat(np.arange(n) - row_offsets[:-1][row], sizes)
    result.context_end[everywhere] = np.repeat(column + sizes, sizes)
    result.objective_ids[everywhere] = np.repeat(batch.objective_ids, sizes)

    start, end = batch.spans.T
    blanked = ranges(start + begin[owners(batch.span_offsets)], end - start)
    result.targets[blanked] = result.tokens[blanked]
    result.tokens[blanked] = inputs
    result.loss_mask[blanked] = 1
    return Example(**{name: array.reshape(num_rows, width) for name, array in result.arrays().items()})


def _blanked_tokens(rows: RowBatch, blanks: Blanks) -> np.ndarray:
    """The blanked tokens in the order of prediction, int64 [P]."""
    begin = rows.offsets[:-1][owners(blanks.span_offsets)] + blanks.spans[:, 0]
    return rows.tokens[ranges(begin, blanks.sizes)].astype(np.int64)


def _draws(segments: Segments, blanks: Blanks, stream: int) -> np.ndarray:
    """One uint64 for each blanked token [P], in the order of prediction.

    It is a hash of the segment, of where its blanks begin, and of the token's place in the segment. Another epoch has
    other blanks, and with them other draws.
    """
    segment, start = owners(blanks.span_offsets), blanks.spans[:, 0]
    key = keyed.fold(stream, segments.ids)[segment]
    epoch = np.zeros(len(segments), np.uint64)
    np.add.at(epoch, segment, keyed.scramble(key + start.astype(np.uint64)))
    place = ranges(start, blanks.sizes).astype(np.uint64)
    return keyed.scramble(np.repeat(key + epoch[segment], blanks.sizes) + keyed.scramble(place))
