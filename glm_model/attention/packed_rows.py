"""Where the segments of a packed batch lie: found and checked once per batch, and brought to the host.

On an accelerator this waits for the device twice (tens of microseconds, and for what was queued before): the lengths of
segments decide how the fast kernels are called.

Shapes: B rows, L row length, N = B * L flat positions, R runs (segments and stretches of padding).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Runs:
    """Runs of equal segment ids, in order; together they cover all rows."""

    table_R4: Tensor
    """int64 on the host: start, end of the context, end (flat positions), segment id (-1: padding, without context)."""


def find_runs(segment_ids_BL: Tensor, context_end_BL: Tensor | None) -> Runs | None:
    """The runs of a batch, or None when a segment is not in one piece.

        0 0 0 0 1 1 1 - -   0 0 - - - - - - -     segment_ids of two rows; "-" is padding (-1)
        2 2 2 2 6 6 6 0 0   2 2 0 0 0 0 0 0 0     context_end, counted within the row
        ^       ^     ^     ^   ^                 edges: the id changes, or a row begins
        0 2 4 0 | 4 6 7 1 | 7 7 9 -1 | 9 11 11 0 | 11 11 18 -1     the table, in flat positions

    context_end_BL None: segments are all context. Raises ValueError when a context ends outside its segment (for one in
    several pieces: outside what they span), or changes within it.
    """
    rows, length = segment_ids_BL.shape
    ids_N = segment_ids_BL.reshape(-1)
    edge_N = torch.ones_like(ids_N, dtype=torch.bool)
    edge_N[1:] = ids_N[1:] != ids_N[:-1]
    edge_N[::length] = True
    start_R = edge_N.nonzero()[:, 0]
    if context_end_BL is None:
        ends_R, changes_R = torch.full_like(start_R, -1), torch.zeros_like(start_R)
    else:
        ends_N = context_end_BL.reshape(-1)
        ends_R = ends_N[start_R]
        # Within a segment the value may not change: the backends would disagree on what it means.
        changes_N = (ends_N != ends_N.roll(1)) & ~edge_N & (ids_N >= 0)
        changes_R = changes_N.any().to(torch.int64).expand_as(start_R)
    start_R, ids_R, ends_R, changes_R = torch.stack((start_R, ids_N[start_R], ends_R, changes_R)).cpu().unbind()
    end_R = torch.cat((start_R[1:], torch.tensor([rows * length])))
    real_R = ids_R >= 0
    names = torch.stack((start_R // length, ids_R))[:, real_R]  # of a segment: its row and its id
    segments, of_R = torch.unique(names, dim=1, return_inverse=True)
    in_one_piece = segments.shape[1] == names.shape[1]
    if context_end_BL is None:
        context_R = torch.where(real_R, end_R, start_R)
    else:
        context_R = torch.where(real_R, ends_R + start_R // length * length, start_R)
        first_R = _over_segment("amin", start_R, real_R, of_R)
        last_R = _over_segment("amax", end_R, real_R, of_R)
        _check_context(first_R, context_R, last_R, length)
        if bool(changes_R.any()):
            _refuse_changes(segment_ids_BL, context_end_BL)
        differ_R = _over_segment("amax", context_R, real_R, of_R) != context_R
        if bool(differ_R.any()):
            i = int(differ_R.nonzero()[0])
            raise ValueError(
                f"context_end differs between the parts of segment {ids_R[i]} of row {start_R[i] // length}. "
                "All positions of a segment carry the same value"
            )
    return Runs(torch.stack((start_R, context_R, end_R, ids_R), 1)) if in_one_piece else None


def _over_segment(how: str, value_R: Tensor, real_R: Tensor, of_R: Tensor) -> Tensor:
    """The least (amin) or largest (amax) value among the runs of each run's segment; of padding its own.

    of_R: the segment's number, of real runs alone.
    """
    result_R = value_R.clone()
    found = value_R.new_zeros(int(real_R.sum())).scatter_reduce(0, of_R, value_R[real_R], how, include_self=False)
    result_R[real_R] = found[of_R]
    return result_R


def _check_context(start_R: Tensor, context_R: Tensor, end_R: Tensor, length: int) -> None:
    outside_R = (context_R < start_R) | (context_R > end_R)
    if not bool(outside_R.any()):
        return
    i = int(outside_R.nonzero()[0])
    start, end, context = (int(x[i]) for x in (start_R, end_R, context_R))
    row = start // length
    raise ValueError(
        f"context_end={context - row * length} lies outside its segment, which spans {start - row * length} to "
        f"{end - row * length} of row {row}. context_end is a row index: one past the segment's context"
    )


def _refuse_changes(segment_ids_BL: Tensor, context_end_BL: Tensor) -> None:
    ids, ends = segment_ids_BL, context_end_BL
    changes = (ends[:, 1:] != ends[:, :-1]) & (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)
    row, column = changes.nonzero()[0].tolist()
    raise ValueError(
        f"context_end changes inside a segment of row {row} after column {column}. "
        "All positions of a segment carry the same value"
    )
