"""The paper's ablations that change what the model reads, and not which tokens are blanked (section 4.4 of the paper).

All draws are keyed by the segment and its blanks, so they are the same wherever and with whatever they are made;
another epoch draws others because its blanks are others.
"""

import numpy as np

from glm_model.layout import Example, Marks, Ragged, Sentinels, ranges
from pipelines import keyed

NUM_SENTINELS = 127  # besides the plain mask; a segment of 512 tokens has 24 blanks, give or take 5
_NOISE, _KIND, _TOKEN = 1, 2, 3


def extra_tokens(*, sentinels: bool, noise: bool) -> int:
    """Ids behind the tokenizer's own that the model needs: the vocabulary grows, the store stays as it is."""
    return (2 * NUM_SENTINELS if sentinels else 0) + (1 if noise else 0)


def sentinels(span_offsets: np.ndarray, *, mask: int, sop: int, vocab_size: int, position: int) -> Sentinels:
    """Masks and `[sop]`s numbered in the order of prediction; the first blank has the plain ones, as in the authors'
    code, and all beyond the last number share it.
    """
    number = ranges(np.zeros(len(span_offsets) - 1, np.int64), np.diff(span_offsets))
    pair = vocab_size + 2 * (np.minimum(number, NUM_SENTINELS) - 1)
    return Sentinels(np.where(number, pair, mask), np.where(number, pair + 1, sop), position)


def noisy_inputs(
    blanked: np.ndarray, ids: np.ndarray, spans: np.ndarray, span_offsets: np.ndarray, *, share: float, noise: int
) -> np.ndarray:
    """The blanked tokens [P] as the model reads them: each is `noise` with probability `share` (dBLOCK in the authors'
    code).
    """
    drop = keyed.uniform(_draws(ids, spans, span_offsets, _NOISE)) < share
    return np.where(drop, noise, blanked)


def bert_replacements(
    blanked: np.ndarray,
    ids: np.ndarray,
    spans: np.ndarray,
    span_offsets: np.ndarray,
    *,
    mask: int,
    vocab_size: int,
    random_share: float,
    kept_share: float,
) -> np.ndarray:
    """What stands in the place of each blanked token [P]: the mask, a random token, or the token itself."""
    kind = keyed.uniform(_draws(ids, spans, span_offsets, _KIND))
    anything = keyed.below(_draws(ids, spans, span_offsets, _TOKEN), vocab_size)
    return np.where(kind < kept_share, blanked, np.where(kind < kept_share + random_share, anything, mask))


def expand_in_place(
    batch: Ragged, replacements: np.ndarray, row_offsets: np.ndarray, *, width: int, marks: Marks
) -> Example:
    """Packed rows [B, width] of segments whose P blanked tokens, in the order of the spans, become `replacements` [P].

    Masked language modelling as BERT does it, and no blank infilling: tokens are predicted where they stand, nothing is
    appended, the second position is 0, and every token sees its whole segment (`context_end` is the segment's end).
    Raises ValueError when a row's segments do not fit in width.
    """
    n, num_rows = len(batch.offsets) - 1, len(row_offsets) - 1
    sizes = np.diff(batch.offsets)
    row = np.repeat(np.arange(num_rows), np.diff(row_offsets))
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

    segment = np.repeat(np.arange(n), np.diff(batch.span_offsets))
    blanked = ranges(batch.spans[:, 0] + begin[segment], batch.spans[:, 1] - batch.spans[:, 0])
    result.targets[blanked] = result.tokens[blanked]
    result.tokens[blanked] = replacements
    result.loss_mask[blanked] = 1
    return Example(**{name: array.reshape(num_rows, width) for name, array in result.arrays().items()})


def _draws(ids: np.ndarray, spans: np.ndarray, span_offsets: np.ndarray, stream: int) -> np.ndarray:
    """One uint64 per blanked token [P], in the order of the spans."""
    size = spans[:, 1] - spans[:, 0]
    segment = np.repeat(np.arange(len(ids)), np.diff(span_offsets))
    key = keyed.fold(stream, ids)[segment]
    # A segment's spans differ between epochs and the start of each is its own: no counter over tokens is needed.
    place = ranges(spans[:, 0], size).astype(np.uint64)
    whole = np.zeros(len(ids), np.uint64)
    np.add.at(whole, segment, keyed.scramble(key + spans[:, 0].astype(np.uint64)))
    return keyed.scramble(np.repeat(key + whole[segment], size) + keyed.scramble(place))
