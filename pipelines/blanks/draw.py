"""Draw the blanks of segments: which objective, which spans, in which order. A pure function of (seed, epoch, segment
id).

The draw depends neither on batch, worker and order nor on how many segments are processed together, so blanks drawn in
advance by Ray Data and blanks drawn in the training worker are the same bytes.
"""

import numpy as np

from glm_model.layout import expanded_lengths
from infra.errors import UserError
from pipelines import keyed
from pipelines.blanks.mixture import Mixture
from pipelines.objectives import SegmentBatch
from pipelines.ragged import Blanks, RowBatch, Segments, merge_spans, take
from pipelines.token_classes import TokenClasses

_OBJECTIVE, _KEY = 101, 102  # streams of draws
_MAX_DRAWS = 64


def draw(
    mixture: Mixture,
    rows: RowBatch,
    token_classes: TokenClasses,
    *,
    seed: int,
    epoch: int,
    attempt: int | np.ndarray = 0,
) -> Blanks:
    """The blanks of every segment of `rows`. `attempt` (a number, or one per segment) selects an independent redraw."""
    base = keyed.fold(seed, epoch)[0]
    keys = keyed.fold(base, attempt, rows.ids)
    choice = keyed.uniform(keyed.bits(keys, 1, stream=_OBJECTIVE)[:, 0])
    objective = np.minimum(np.searchsorted(np.cumsum(mixture.shares), choice, side="right"), len(mixture.names) - 1)
    keys = keyed.scramble(keys + np.uint64(_KEY))
    parts = []
    for index, (module, config) in enumerate(zip(mixture.modules, mixture.configs, strict=True)):
        members = np.flatnonzero(objective == index)
        if len(members) == len(keys):
            batch = SegmentBatch(rows.tokens, rows.offsets, keys, token_classes)
        else:
            tokens, offsets = take(rows.tokens, rows.offsets, members)
            batch = SegmentBatch(tokens, offsets, keys[members], token_classes)
        if len(members):
            parts.append((members, *module.spans(batch, config)))
    spans, span_offsets = merge_spans(parts, len(keys))
    if mixture.form.left_to_right:
        segment = np.repeat(np.arange(len(keys)), np.diff(span_offsets))
        spans = spans[np.lexsort((spans[:, 0], segment))]
    return Blanks(objective.astype(np.uint8), spans, span_offsets)


def draw_rows(
    mixture: Mixture, rows: RowBatch, token_classes: TokenClasses, *, seed: int, epoch: int, width: int
) -> tuple[Blanks, np.ndarray]:
    """Blanks whose expansion fits each row in `width` positions, and the number of redraws of each row [R] (0 nearly
    always).

    Rows are filled with a reserve of six standard deviations (`pipelines.store.packing`); one that overflows all the
    same has all its segments drawn again with the next attempt number, a rule on that row alone. Raises UserError when
    the rows were packed for a mixture that expands less.
    """
    blanks = draw(mixture, rows, token_classes, seed=seed, epoch=epoch)
    redraws = np.zeros(len(rows.row_offsets) - 1, np.int64)
    for attempt in range(1, _MAX_DRAWS):
        sizes = positions(rows, blanks, mixture)
        filled = np.add.reduceat(sizes, rows.row_offsets[:-1]) if len(sizes) else np.zeros(0)
        over = np.flatnonzero(filled > width)
        if len(over) == 0:
            return blanks, redraws
        redraws[over] = attempt
        attempts = np.repeat(redraws, np.diff(rows.row_offsets))
        blanks = draw(mixture, rows, token_classes, seed=seed, epoch=epoch, attempt=attempts)
    raise UserError(
        f"the blanks of a row need more than its {width} positions, {_MAX_DRAWS} times in a row",
        why="the store was packed for a mixture that expands less",
        try_="prepare it again with this mixture: python workflows/prepare.py --config <recipe>",
    )


def positions(rows: RowBatch, blanks: Blanks, mixture: Mixture) -> np.ndarray:
    """Positions that each segment takes once laid out, [N]."""
    return np.diff(rows.offsets) if mixture.form.in_place else expanded_lengths(rows.offsets, blanks.span_offsets)


def moments(mixture: Mixture, segments: Segments, token_classes: TokenClasses) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of the positions that each segment takes once laid out, [N], over the draws of the mixture."""
    batch = SegmentBatch(segments.tokens, segments.offsets, segments.ids, token_classes)
    if mixture.form.in_place:
        return batch.lengths.astype(np.float64), np.zeros(len(batch))
    mean, square = np.zeros(len(batch)), np.zeros(len(batch))
    for module, config, share in zip(mixture.modules, mixture.configs, mixture.shares, strict=True):
        first, variance = module.blank_moments(batch, config)
        mean += share * first
        square += share * (variance + first**2)
    return batch.lengths + 2 * mean, 4 * np.maximum(square - mean**2, 0)
