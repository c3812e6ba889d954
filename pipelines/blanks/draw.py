"""Draw the blanks of segments: which objective, which spans, in which order.

A draw is a pure function of (seed, epoch, segment id). It depends neither on batch, worker and order nor on how many
segments are processed together, so blanks drawn in advance by Ray Data and blanks drawn in the training worker are the
same bytes.
"""

import numpy as np

from infra import commands
from infra.errors import UserError
from pipelines import keyed
from pipelines.blanks.mixture import Mixture
from pipelines.objectives import SegmentBatch
from pipelines.ragged import Blanks, RowBatch, Segments, merge_spans, owners, take
from pipelines.token_classes import TokenClasses

_OBJECTIVE, _KEY = 101, 102  # streams of draws
_MAX_DRAWS = 64


def draw_blanks(
    mixture: Mixture,
    segments: Segments,
    token_classes: TokenClasses,
    *,
    seed: int,
    epoch: int,
    attempt: int | np.ndarray = 0,
) -> Blanks:
    """The blanks of every segment. `attempt` (a number, or one per segment [N]) selects an independent redraw."""
    base = keyed.fold(seed, epoch)[0]
    keys = keyed.fold(base, attempt, segments.ids)
    choice = keyed.uniform(keyed.bits(keys, 1, stream=_OBJECTIVE)[:, 0])
    objective = np.minimum(np.searchsorted(np.cumsum(mixture.shares), choice, side="right"), len(mixture.names) - 1)
    keys = keyed.scramble(keys + np.uint64(_KEY))
    parts = []
    for index, (module, config) in enumerate(zip(mixture.modules, mixture.configs, strict=True)):
        members = np.flatnonzero(objective == index)
        if len(members) == len(keys):
            batch = SegmentBatch(segments.tokens, segments.offsets, keys, token_classes)
        else:
            tokens, offsets = take(segments.tokens, segments.offsets, members)
            batch = SegmentBatch(tokens, offsets, keys[members], token_classes)
        if len(members):
            parts.append((members, *module.spans(batch, config)))
    spans, span_offsets = merge_spans(parts, len(keys))
    if mixture.left_to_right:
        spans = spans[np.lexsort((spans[:, 0], owners(span_offsets)))]
    return Blanks(objective.astype(np.uint8), spans, span_offsets)


def draw_rows(
    mixture: Mixture, rows: RowBatch, token_classes: TokenClasses, *, seed: int, epoch: int, width: int
) -> tuple[Blanks, np.ndarray]:
    """Blanks with which each row fits in `width` positions, and how often each was drawn again [R], nearly always 0.

    Rows are filled with a reserve of six standard deviations (`pipelines.store.packing`). One that overflows all the
    same has all its segments drawn again with the next attempt number, a rule on that row alone:

        attempt          0           1           2
        row 0      fits: kept        .           .
        row 1      overflows     overflows   fits: kept     redraws = [0, 2]

    Raises UserError when the rows were packed for a mixture that expands less.
    """
    blanks = draw_blanks(mixture, rows, token_classes, seed=seed, epoch=epoch)
    redraws = np.zeros(len(rows.row_offsets) - 1, np.int64)
    for attempt in range(1, _MAX_DRAWS):
        sizes = mixture.form.positions(rows, blanks)
        filled = np.add.reduceat(sizes, rows.row_offsets[:-1]) if len(sizes) else np.zeros(0)
        over = np.flatnonzero(filled > width)
        if len(over) == 0:
            return blanks, redraws
        redraws[over] = attempt
        attempts = np.repeat(redraws, np.diff(rows.row_offsets))
        blanks = draw_blanks(mixture, rows, token_classes, seed=seed, epoch=epoch, attempt=attempts)
    raise UserError(
        f"the blanks of a row need more than its {width} positions, {_MAX_DRAWS} times in a row",
        why="the store was packed for a mixture that expands less",
        try_=f"prepare it again with this mixture: {commands.workflow('prepare')} --config <recipe>",
    )


def moments(mixture: Mixture, segments: Segments, token_classes: TokenClasses) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of the positions that each segment takes once laid out, [N], over the draws of the mixture."""
    batch = SegmentBatch(segments.tokens, segments.offsets, segments.ids, token_classes)
    mean, square = np.zeros(len(batch)), np.zeros(len(batch))
    for module, config, share in zip(mixture.modules, mixture.configs, mixture.shares, strict=True):
        first, variance = module.blank_moments(batch, config)
        mean += share * first
        square += share * (variance + first**2)
    each = mixture.form.positions_per_blank
    return batch.lengths + each * mean, each**2 * np.maximum(square - mean**2, 0)
